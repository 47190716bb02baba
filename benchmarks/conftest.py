# SPDX-License-Identifier: Apache-2.0
"""One summary line per goal, which scripts can read: ``RATIO name value goal met|missed``."""

import csv
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tta_bench.engine.machine import describe_machine


class Measured(NamedTuple):
    """One measured value beside its goal; the fields are the columns of a committed table."""

    name: str
    value: str
    goal: str
    verdict: str
    threads: int
    conditions: str


_MEASURED: list[Measured] = []


@pytest.fixture
def goal():
    """Return a function that notes a measured value and its goal, without failing on a missed one."""
    machine = describe_machine(torch.device("cpu"))
    where = f"{machine.device_name}, {machine.cores} cores, torch {machine.torch_build}"
    conditions = f"{where}, {datetime.now(UTC):%Y-%m-%d}"

    def note(name, value, target, *, at_most=True):
        met = value <= target if at_most else value >= target
        sign, verdict = ("<=" if at_most else ">="), ("met" if met else "missed")
        threads = torch.get_num_threads()
        _MEASURED.append(Measured(name, f"{value:.4g}", f"{sign}{target:g}", verdict, threads, conditions))

    return note


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    """Print the lines at the end, where nothing follows them, and add them to the table that was named."""
    if not _MEASURED:
        return
    terminalreporter.section("goals")
    for one in _MEASURED:
        terminalreporter.write_line(f"RATIO {one.name} {one.value} {one.goal} {one.verdict}")
    if not os.environ.get("RATIOS"):
        return
    path = Path(os.environ["RATIOS"])
    begun = path.exists()
    with path.open("a", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerows(_MEASURED if begun else [Measured._fields, *_MEASURED])
