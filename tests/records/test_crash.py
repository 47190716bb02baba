# SPDX-License-Identifier: Apache-2.0
"""Whenever a process dies, the rows that count as done are intact and the cell ends the same after a resume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tta_bench.records.store import Store

from .synthetic import manifest, records

ROWS, BATCH = 120, 20

CHILD = """
import sys, time
sys.path.insert(0, sys.argv[2])
from synthetic import manifest, records
from tta_bench.records.store import Store
store = Store(sys.argv[1]).open(create=True)
store.write_manifest(manifest("c"))
writer = store.writer("c", resume=False, flush_rows=30)
for start in range(0, 10**6, 10):
    writer.append(records(10, start=start, seed=start))
    time.sleep(0.002)
"""


class Crash(BaseException):
    """Stands for the death of the process: nothing may catch it."""


def expected(cell_rows=ROWS, batch=BATCH):
    return [records(batch, start=start, seed=start) for start in range(0, cell_rows, batch)]


def run(store, *, resume):
    writer = store.writer("c", resume=resume, flush_rows=BATCH * 2)
    for batch in expected()[writer.rows // BATCH :]:
        writer.append(batch)
    writer.finish(manifest("c"))


def die_at(file_system, monkeypatch, moment, after):
    """Let the file system die at its n-th change, before or after carrying it out."""
    count = 0

    def dying(real):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == moment and not after:
                raise Crash
            result = real(*args, **kwargs)
            if count == moment:
                raise Crash
            return result

        return call

    for name in ("mv", "rm_file"):
        monkeypatch.setattr(file_system, name, dying(getattr(file_system, name)))


@pytest.mark.parametrize("after", [False, True])
def test_a_death_at_any_change_of_a_file_loses_nothing_that_was_done(tmp_path, after):
    whole = Store(tmp_path / "whole").open(create=True)
    run(whole, resume=False)
    moment, died = 0, True
    while died:
        moment += 1
        store = Store(tmp_path / f"run{moment}").open(create=True)
        store.write_manifest(manifest("c"))
        with pytest.MonkeyPatch.context() as patch:
            die_at(store._files._fs, patch, moment, after)
            try:
                run(store, resume=False)
                died = False
            except Crash:
                pass
        done = store.rows_done("c")
        if done:
            assert store.read("c").equals(whole.read("c").slice(0, done))
        if store.manifest("c").status == "complete":
            assert done == ROWS
        with pytest.MonkeyPatch.context() as patch:  # a second death while resuming
            die_at(store._files._fs, patch, 2, after)
            try:
                run(store, resume=True)
            except Crash:
                assert store.rows_done("c") >= done
        run(store, resume=True)
        assert store.read("c").equals(whole.read("c"))
        assert store._files.names("cells/c") == ["manifest.json", "records.parquet"]
        assert not store._files.unfinished("cells/c")
    assert moment > 6


@pytest.mark.parametrize("wait_s", [0.0, 0.013, 0.031, 0.057])
def test_sigkill_leaves_a_store_that_resumes(tmp_path, wait_s):
    url = str(tmp_path / "runs")
    child = subprocess.Popen([sys.executable, "-c", CHILD, url, str(Path(__file__).parent)])
    try:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob("runs/cells/c/part-00002.parquet")):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(wait_s)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    store = Store(url).open(create=False)
    done = store.rows_done("c")
    assert done >= 90
    assert done % 10 == 0
    for start in range(0, done, 10):
        here = store.read("c", ["prediction", "confidence"]).slice(start, 10)
        batch = records(10, start=start, seed=start)
        assert here.column("prediction").to_pylist() == batch["prediction"].tolist()
        assert here.column("confidence").to_pylist() == batch["confidence"].tolist()
    writer = store.writer("c", resume=True)
    writer.append(records(10, start=done, seed=done))
    assert writer.finish(store.manifest("c")).images == done + 10
    assert store.read("c").column("position").to_pylist() == list(range(done + 10))
