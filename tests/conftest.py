# SPDX-License-Identifier: Apache-2.0
"""One thread for each worker, or as many as ``OMP_NUM_THREADS`` says, and a cache folder for each test."""

import os
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile(
    "suite",
    database=None,  # the checkout may be one that cannot be written to
    deadline=None,  # the machine is shared by the workers
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of its own."""
    monkeypatch.setenv("TTA_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data that ``TTA_BENCH_TEST_DATA`` names; without it the test is skipped."""
    folder = os.environ.get("TTA_BENCH_TEST_DATA")
    if not folder:
        pytest.skip("TTA_BENCH_TEST_DATA does not name a folder of real data")
    return Path(folder)


class Done(NamedTuple):
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def tta_bench(monkeypatch, capsys):
    """Return a function that runs ``tta-bench`` with arguments in this process, as its console script would."""
    from tta_bench.cli import main

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["tta-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return Done(stopped.value.code or 0, captured.out, captured.err)

    return run
