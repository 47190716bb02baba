# SPDX-License-Identifier: Apache-2.0
"""Kill a run of 60 cells at random points, resume each, and summarise how many resumes were exact.

``python benchmarks/kill_runs.py 200 results/benchmarks/survival.csv``
"""

import csv
import importlib
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tta_bench.engine.machine import describe_machine

ROOT = Path(__file__).parents[1]
sys.modules["tests"] = ModuleType("tests")  # an installed package may have that name
sys.modules["tests"].__path__ = [str(ROOT / "tests")]
kills = importlib.import_module("tests.engine.kills")
HEADER = ("name", "value", "goal", "verdict", "threads", "conditions")


def main(count, path):
    """Run the kills, print each, and keep the summary of those so far."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("TTA_BENCH_CACHE", f"{folder}/cache")
        kills.prepare(patch)
        done = []
        for one in kills.kills(Path(folder), count, seeds=10):
            done.append(one)
            print(len(done), *one, flush=True)
            summarise(done, path)


def summarise(done, path):
    """Write how many resumes were exact."""
    machine = describe_machine(torch.device("cpu"))
    where = f"{machine.device_name}, {machine.cores} cores, torch {machine.torch_build}, {datetime.now(UTC):%Y-%m-%d}"
    exact, inside = sum(one.exact for one in done), sum(one.rows % 37 > 0 for one in done)
    rows = [
        (
            "exact_resumes_of_60_cells",
            exact,
            f">={len(done)}",
            "met" if exact == len(done) else "missed",
            1,
            where,
        ),
        ("kills_inside_a_cell", inside, ">=0", "met", 1, where),
    ]
    with open(path, "w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows([HEADER, *rows])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
