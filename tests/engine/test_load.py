# SPDX-License-Identifier: Apache-2.0
"""What is noted of other work on the machine, and when times are called noisy."""

import pytest
import torch

from tta_bench.engine import load
from tta_bench.engine.load import LoadWatch, read_clock
from tta_bench.spec.manifest import Load

CPU = torch.device("cpu")


def told(monkeypatch, tmp_path, *accounts):
    """Let the system tell these nanoseconds of running and waiting in turn."""
    path, left = tmp_path / "schedstat", list(accounts)
    monkeypatch.setattr(load, "WAITING", path)

    def write():
        path.write_text(left.pop(0))

    return write


def test_the_share_of_waiting_is_that_of_the_time_in_between(monkeypatch, tmp_path):
    write = told(monkeypatch, tmp_path, "1000 500 7\n", "4000 1500 9\n")
    write()
    watch = LoadWatch(CPU)
    write()
    assert watch.taken().waited == 0.25


@pytest.mark.parametrize("content", [None, "", "what is this"])
def test_a_system_that_tells_nothing_is_no_error(monkeypatch, tmp_path, content):
    monkeypatch.setattr(load, "WAITING", tmp_path / "schedstat")
    monkeypatch.delattr("os.getloadavg")
    if content is not None:
        (tmp_path / "schedstat").write_text(content)
    assert LoadWatch(CPU).taken() == Load()


@pytest.mark.parametrize(
    ("found", "noisy"),
    [
        (Load(before=9, after=9, waited=0.01), False),
        (Load(before=0, after=0, waited=0.3), True),
        (Load(before=2.4, after=1), False),
        (Load(before=2.6, after=1), True),
        (Load(waited=0.0, gpu_slowed=True), True),
        (Load(), False),
    ],
)
def test_noisy_times(found, noisy):
    assert found.noisy(2) is noisy


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("1980, 1980, Not Active, Not Active\n", (1980, 1980, False)),
        ("345, 1980, Not Active, Active\n", (345, 1980, True)),
        ("[N/A], 1980, [N/A], [N/A]\n", (None, 1980, None)),
        ("", (None, None, None)),
        ("Field is not a valid field to query.\n", (None, None, None)),
    ],
)
def test_the_clock_of_a_gpu(line, found):
    assert read_clock(line) == found
