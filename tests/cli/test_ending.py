# SPDX-License-Identifier: Apache-2.0
"""Whatever takes the output or stops the process: the cells are right, and the end is quiet or one sentence."""

import os
import signal
import subprocess
import sys

import pytest

from tta_bench.records.store import Store

RUN = [
    "run",
    "--method",
    "source",
    "--dataset",
    "pocket-c:fog",
    "--limit",
    "40",
    "--batch-size",
    "4",
    "--no-memory",
]
CLOSING = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, '-m', 'tta_bench', *sys.argv[1:]])"


def heard():
    """Listen to the signals that nohup ignores."""
    for name in ("SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def start(*arguments, **options):
    command = [sys.executable, "-m", "tta_bench", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def test_a_reader_that_goes_away_leaves_a_complete_cell(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    process = start("run", *RUN[1:], "--output", tmp_path / "runs", stdout=writing)
    os.close(writing)
    _, told = process.communicate(timeout=300)
    assert (process.returncode, told) == (141, "")


def test_an_output_that_breaks_under_way_decides_about_no_cell(tmp_path, tta_bench, monkeypatch):
    from tta_bench.reports import progress

    def broken(*arguments):
        raise BrokenPipeError

    monkeypatch.setattr(progress.ConsoleReporter, "cell_ended", broken)
    done = tta_bench(*RUN, "--output", tmp_path / "runs")
    assert done.code == 0, done.err
    assert [one.status for one in Store(tmp_path / "runs").manifests()] == ["complete"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_output_is_one_sentence():
    with open("/dev/full", "wb") as full:
        process = start("list", "methods", stdout=full)
        _, told = process.communicate(timeout=300)
    assert process.returncode == 2
    assert told.count("\n") == 1
    assert "standard output should take what is printed" in told


@pytest.mark.skipif(os.name != "posix", reason="there are no numbered files to close")
def test_a_closed_output_is_one_sentence():
    command = [sys.executable, "-c", CLOSING, "list", "methods"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert (
        done.stderr
        == "tta-bench: the standard output is closed; redirect it, for instance to a file or to /dev/null\n"
    )


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_run_like_an_interruption(tmp_path, tta_bench, monkeypatch, name):
    from tta_bench.reports import progress

    number, real = getattr(signal, name), progress.ConsoleReporter.advanced

    def send(self, images):
        real(self, images)
        os.kill(os.getpid(), number)

    before = signal.signal(number, signal.SIG_DFL)  # nohup ignores some of them
    with monkeypatch.context() as patch:
        patch.setattr(progress.ConsoleReporter, "advanced", send)
        done = tta_bench(*RUN, "--output", tmp_path / "runs")
    signal.signal(number, before)
    assert done.code == 128 + number
    assert done.err.startswith("tta-bench: interrupted after 0 of 1 cell; the same command with --resume")
    assert "Traceback" not in done.err
    (stored,) = Store(tmp_path / "runs").manifests()
    assert stored.status == "running"
    assert Store(tmp_path / "runs").rows_done(stored.id) == 4
    assert tta_bench(*RUN, "--resume", "--output", tmp_path / "runs").code == 0


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_before_anything_is_imported_is_one_sentence(tmp_path, name):
    (tmp_path / "typer.py").write_text(
        f"import os, signal\nos.kill(os.getpid(), signal.{name})\nraise SystemExit('not stopped')\n"
    )
    process = start(
        "list", stdout=subprocess.DEVNULL, preexec_fn=heard, env=os.environ | {"PYTHONPATH": str(tmp_path)}
    )
    _, told = process.communicate(timeout=300)
    assert (process.returncode, told) == (128 + getattr(signal, name), "tta-bench: interrupted\n")


def test_a_signal_in_any_command_is_one_sentence(tta_bench, monkeypatch):
    from tta_bench import registry

    monkeypatch.setattr(registry, "registered", lambda group: os.kill(os.getpid(), signal.SIGTERM))
    done = tta_bench("describe", "tent")
    assert (done.code, done.err) == (143, "tta-bench: interrupted\n")
