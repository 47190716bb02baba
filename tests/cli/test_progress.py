# SPDX-License-Identifier: Apache-2.0
"""What a run says while it goes: which cell of how many, and how it was interrupted."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from tta_bench.engine.session import Session
from tta_bench.reports import progress
from tta_bench.reports.progress import ConsoleReporter

RUN = ("run", "--method", "source", "--dataset", "pocket", "--limit", "8")


@pytest.mark.parametrize("status", ["complete", "failed", "collapsed"])
@pytest.mark.parametrize("done", [0, 4])
def test_a_cell_is_told_by_its_own_number(monkeypatch, status, done):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    console = Console(file=io.StringIO())
    with ConsoleReporter(console, 3) as reporter:
        reporter.cell_ended("a", "reused")
        for label in ("b", "c"):
            reporter.cell_started(label, done, 10)
            reporter.advanced(2)
            reporter.cell_ended(label, status, "odd" if status == "failed" else "")
    lines = console.file.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines] == ["[1/3] a", *["[2/3] b"] * 2, *["[3/3] c"] * 2]


def test_a_long_preparation_tells_how_far_it_is(monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    console = Console(file=io.StringIO())
    with ConsoleReporter(console, 1) as reporter:
        reporter.cell_started("rmt · pocket-bn", 0, 10)
        reporter.preparing("rmt", 12_800, 50_000)
        reporter.preparing("rmt", 50_064, 50_000)
        reporter.preparing("own", 64, None)
        reporter.advanced(10)
    assert console.file.getvalue().splitlines()[:3] == [
        "warming up rmt: 12,800 of 50,000 images",
        "warming up rmt: 50,000 of 50,000 images",
        "warming up own: 64 images",
    ]


def test_the_bar_of_a_preparation_stands_beside_that_of_the_cell_and_goes_with_its_end():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with ConsoleReporter(console, 1) as reporter:
        reporter.cell_started("rmt", 0, 10)
        reporter.preparing("rmt", 12_800, 50_000)
        reporter._progress.refresh()
        assert "warming up rmt" in console.file.getvalue()
        assert "12800/50000" in console.file.getvalue()
        assert len(reporter._progress.tasks) == 2
        reporter.advanced(10)
        assert len(reporter._progress.tasks) == 1


def test_an_interrupted_run_says_how_to_go_on(tta_bench, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "_compute", interrupt)
    done = tta_bench(*RUN, "--output", tmp_path / "runs")
    assert done.code == 130
    assert done.err.startswith(
        "tta-bench: interrupted; the same command with --resume continues from here, but starts"
    )
    assert done.err.count("\n") == 1


def test_an_interrupted_cell_goes_on(tta_bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    count = 0

    def interrupt(self, images):
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ConsoleReporter, "advanced", interrupt)
        assert tta_bench(*RUN, "--batch-size", "2").code == 130
    assert not list(Path("runs").glob("cells/*/owner.json"))
    done = tta_bench(*RUN, "--batch-size", "2", "--resume")
    assert done.code == 0
    assert "4 images in" in done.out


def test_reading_files_is_told_outside_a_terminal(capsys):
    from tta_bench.data.images import contents

    with ConsoleReporter(Console(file=None, force_terminal=False, width=120), 1):
        contents._listener[0](3, 2000)
        contents._listener[0](2000, 2000)
    assert (
        "reading files for the data hash, once until they change: 2,000 of 2,000" in capsys.readouterr().out
    )
    contents._listener[0](1, 1)
    assert capsys.readouterr().out == "", "nobody listens after the run"
