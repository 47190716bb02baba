# SPDX-License-Identifier: Apache-2.0
"""What a run says while it goes: which cell of how many, and how it was interrupted."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from tta_bench.cli import ending
from tta_bench.engine.session import Session
from tta_bench.reports import progress
from tta_bench.reports.progress import ConsoleReporter, duration, shortened
from tta_bench.reports.text import report_console

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
    numbered = [line for line in lines if line.startswith("[")]
    assert [line.split(":")[0] for line in numbered] == ["[1/3] a", *["[2/3] b"] * 2, *["[3/3] c"] * 2]
    assert ("  odd" in lines) == (status == "failed")


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
        assert "12,800/50,000" in console.file.getvalue()
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
        "tta-bench: interrupted after 0 of 1 cell; the same command with --resume continues from here"
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


LABEL = "unmix-tns-tent[lr=0.001,steps=2] · timm/resnet50.a1_in1k · imagenet-c:gaussian_noise:5"


class Terminal(io.StringIO):
    """An output that says it is a terminal."""

    def isatty(self):
        """Say so."""
        return True


def told(console, labels):
    with ConsoleReporter(console, len(labels)) as reporter:
        for label in labels:
            reporter.cell_started(label, 0, 200)
            reporter.advanced(200)
            reporter.cell_ended(label, "complete")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


@pytest.mark.parametrize("width", [60, 80])
def test_the_line_of_a_cell_fits_the_terminal(width):
    console = Console(file=Terminal(), width=width, force_terminal=True)
    text = told(console, ["tent · pocket-bn · pocket-c:fog:5", LABEL])
    kept = [line for line in re.split(r"[\r\n]+", text) if " in " in line]
    assert len(kept) == 2
    assert all(len(line.rstrip()) <= width for line in re.split(r"[\r\n]+", text))
    assert kept[0].startswith("[1/2] tent · pocket-bn · ")
    assert kept[1].startswith("[2/2] unmix-tns-tent")
    assert "200 images in" in kept[1]


def test_a_log_and_a_notebook_read_the_same(monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 0.0)
    texts = []
    for console in (
        report_console(io.StringIO()),
        report_console(io.StringIO(), 200),
    ):
        texts.append(told(console, ["tent · pocket-bn · pocket-c:fog:5", LABEL]))
    assert texts[0] == texts[1]
    lines = texts[0].splitlines()
    assert lines[0] == "[1/2] tent · pocket-bn · pocket-c:fog:5: 200 images in 0.0 s"
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80


def test_one_bar_tells_of_the_whole_run_and_its_own_time_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    reporter = ConsoleReporter(Console(file=io.StringIO()), 4)
    reporter.cell_ended("a", "reused")
    reporter.cell_started("b", 0, 100)
    now[0] = 10.0
    reporter.advanced(50)
    assert reporter._state() == "5 images/s, 50 s left", "half a cell in 10 s, and two and a half are ahead"
    now[0] = 20.0
    reporter.advanced(50)
    reporter.cell_ended("b", "complete")
    assert reporter._left(0.0) == 40.0
    reporter.cell_started("c", 50, 100)
    now[0] = 30.0
    reporter.advanced(50)
    assert reporter._left(10.0) == 20.0, "what was safe before took no time"


def test_labels_are_cut_where_they_say_least():
    assert shortened("tent · pocket-bn · pocket-c:fog:5", 80) == "tent · pocket-bn · pocket-c:fog:5"
    assert shortened("tent · pocket-bn · pocket-c:fog:5", 26) == "tent · pocket-bn · fog:5"
    short = shortened(LABEL, 30)
    assert len(short) <= 30
    assert "…" in short
    assert [duration(one) for one in (8.23, 42, 130, 3600 * 3 + 299)] == [
        "8.2 s",
        "42 s",
        "2 min",
        "3 h 05 min",
    ]


def test_a_sentence_on_a_terminal_is_wrapped_between_words(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(ending.shutil, "get_terminal_size", lambda: ending.os.terminal_size((60, 24)))
    ending.say_on_stderr("tta-bench: " + "interrupted after 14 of 32 cells; " * 4 + "/a/path/" + "x" * 70)
    lines = screen.getvalue().splitlines()
    assert len(lines) > 2
    assert all(len(line) <= 60 for line in lines[:-1])
    assert lines[-1] == "/a/path/" + "x" * 70


def test_images_that_were_skipped_are_told_at_the_end(tta_bench, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (40, 40), (index * 40, 90, 120)).save(f"photos/{name}/{index}.png")
    Path("photos/cat/bad.png").write_bytes(b"no image")
    done = tta_bench("run", "--method", "clip", "--dataset", "folder:photos", "--model", "pocket-clip",
                     "--on-bad-image", "skip")  # fmt: skip
    assert done.code == 0, done.err
    assert "skipped 1 image of folder:photos that cannot be decoded: " in done.out
    assert "1 cell computed" in done.out
