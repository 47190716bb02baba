# SPDX-License-Identifier: Apache-2.0
"""``tta-bench list``: what is installed, without importing any of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    datasets = "datasets"
    models = "models"
    suites = "suites"


NEXT = {
    Kind.methods: "tta-bench describe",
    Kind.datasets: "tta-bench run --method source --dataset",
    Kind.suites: "tta-bench run --suite",
}
"""The command that follows on a list."""


def list_names(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print comma-separated values instead of a table.")
    ] = False,
) -> None:
    """List the installed methods, datasets, model families or suites with one line each."""
    import csv
    import sys

    rows: list[tuple[str, ...]] = [*(_suites() if kind is Kind.suites else _registered(kind))]
    parity = ("parity",) if kind is Kind.methods else ()
    if kind is Kind.methods:
        from tta_bench.parity.status import label

        rows = [(*row, label(row[0])) for row in rows]
    if as_csv:
        csv.writer(sys.stdout).writerows([("name", "summary", "package", *parity), *rows])
        return
    from rich.table import Table

    from tta_bench.reports.text import report_console

    console = report_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(kind.value[:-1], no_wrap=True, style="cyan")
    table.add_column("what it is", overflow="fold")
    table.add_column("package", no_wrap=True, style="dim")
    for heading in parity:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if kind in NEXT:
        example = rows[0][0] if rows else "NAME"
        console.print(f"\n{NEXT[kind]} {example}", style="dim", highlight=False)


def _registered(kind: Kind) -> list[tuple[str, str, str]]:
    """Return name, summary and package of what the entry points of a group name."""
    from tta_bench import registry

    points = registry.registered(kind.value)
    return [(name, _summary(kind, name), registry.owner(point)) for name, point in points.items()]


def _suites() -> list[tuple[str, str, str]]:
    """Return name, title with version, and package of the suites."""
    from tta_bench.suites import load_suite, suite_names

    suites = [load_suite(name) for name in suite_names()]
    return [(suite.name, f"{suite.title}; version {suite.version}", "tta-bench") for suite in suites]


def _summary(kind: Kind, name: str) -> str:
    from tta_bench import registry

    point = registry.registered(kind.value)[name]
    if kind is Kind.datasets and registry.built_in(point):
        from tta_bench.data.dataset import Dataset

        found = registry.load("datasets", name)
        return found.title if isinstance(found, Dataset) else (found.__doc__ or "").partition("\n")[0]
    return registry.summary(point)
