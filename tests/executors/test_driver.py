# SPDX-License-Identifier: Apache-2.0
"""The driver of a run in several processes is killed: its workers end, and the run resumes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tta_bench.records.process import runs

from .conftest import PLUGIN, numbers


@pytest.mark.slow
def test_workers_do_not_outlive_their_driver(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tta_bench",
        "run",
        "--plugin",
        PLUGIN,
        "--method",
        "walk",
        "--method",
        "dice",
    ]
    command += [
        "--dataset",
        "pocket",
        "--limit",
        "40",
        "--batch-size",
        "4",
        "--model",
        "pocket-bn",
        "--no-memory",
    ]
    command += ["--set", "pause=0.05", "--threads", "1", "--device", "cpu"]
    environment = os.environ | {"TTA_BENCH_FLUSH_SECONDS": "0", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, "--output", tmp_path / "whole"], check=True, capture_output=True, env=environment
    )
    killed = tmp_path / "killed"
    driver = subprocess.Popen(
        [*command, "--output", killed, "--jobs", "2"], stdout=subprocess.DEVNULL, env=environment
    )
    deadline = time.monotonic() + 180
    while len(list(killed.glob("cells/*/part-00002.parquet"))) < 1 and time.monotonic() < deadline:
        assert driver.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    workers = [json.loads(path.read_text())["pid"] for path in killed.glob("cells/*/owner.json")]
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert workers
    while any(map(runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(runs, workers))
    resumed = [*command, "--output", killed, "--resume"]
    done = subprocess.run(resumed, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert numbers(killed) == numbers(tmp_path / "whole")
