# SPDX-License-Identifier: Apache-2.0
"""The gain of several processes, and the cost of cells, resumes and tables of many cells."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tta_bench.api import run_cells
from tta_bench.engine.planning import plan
from tta_bench.records.health import usable
from tta_bench.spec import Controls, make_request

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "records"))
MEASURED = """
import sys, time
start = time.perf_counter()
from tta_bench.reports.leaderboard import leaderboard, write_csv
write_csv(leaderboard([sys.argv[1]]), sys.argv[2])
with open("/proc/self/status") as status:
    peak = next(line for line in status if line.startswith("VmHWM"))
print(time.perf_counter() - start, int(peak.split()[1]) / 2**20)
"""


class Clock:
    """The seconds from the first task to the end of the last: without the start of processes and imports."""

    def __init__(self):
        self.began = self.ended = None

    def planned(self, tasks):
        pass

    def task_started(self, worker, task):
        self.began = self.began or time.perf_counter()

    def heard(self, worker, task, event):
        pass

    def task_again(self, worker, task, reason):
        pass

    def task_ended(self, worker, task, answer):
        self.ended = time.perf_counter()

    @property
    def seconds(self):
        return self.ended - self.began


def cells(**options):
    """The cells of a CPU-bound method on every corruption."""
    values = {"methods": ["ttaug"], "datasets": ["pocket-c"], "limit": 200, "device": "cpu", **options}
    return plan(make_request(values))


def timed(planned, folder, **controls):
    clock = Clock()
    options = Controls(output=str(folder), memory=False, threads=1, **controls)
    ended = run_cells(planned, options, crew=clock).ended
    assert {one.status for one in ended} == {"complete"}
    return clock.seconds


def test_two_local_workers_over_one(benchmark, goal, tmp_path):
    """Time two workers against one, each with one thread, on 15 cells."""
    planned, found = cells(), {}

    def pair():
        for jobs in (1, 2):
            found[jobs] = timed(planned, tmp_path / f"local{jobs}", jobs=jobs, cell_timeout=10**6)

    benchmark.pedantic(pair, rounds=1, iterations=1)
    benchmark.extra_info |= {f"seconds_{jobs}": seconds for jobs, seconds in found.items()}
    goal("two_local_workers_over_one", found[1] / found[2], 1.8, at_most=False)


def test_two_ray_workers_over_one(benchmark, goal, tmp_path):
    """Time a cluster of two processors against one worker; Ray is started before."""
    ray, planned, found = pytest.importorskip("ray"), cells(), {}

    def pair():
        found[1] = timed(planned, tmp_path / "one", jobs=1, cell_timeout=10**6)
        with ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False):
            timed(cells(limit=4), tmp_path / "warm", executor="ray")
            found[2] = timed(planned, tmp_path / "ray", executor="ray")

    benchmark.pedantic(pair, rounds=1, iterations=1)
    goal("two_ray_workers_over_one", found[1] / found[2], 1.7, at_most=False)


def test_overhead_of_a_cell(benchmark, goal, tmp_path):
    """Take the CPU time of cells of eight images, less the steps that they record."""
    planned = cells(methods=["source", "norm", "tent"], limit=8)
    run_cells(planned, Controls(output=str(tmp_path / "warm"), memory=False))
    seconds = []

    def once():
        output = str(tmp_path / f"run{len(seconds)}")
        before = time.process_time()
        ran = run_cells(planned, Controls(output=output, memory=False))
        spent = time.process_time() - before
        frame = ran.results.frame(["adapt_ms", "predict_ms"]).fillna(0.0)
        seconds.append((spent - frame[["adapt_ms", "predict_ms"]].to_numpy().sum() / 1e3) / len(planned))

    benchmark.pedantic(once, rounds=3, iterations=1)
    goal("overhead_per_cell_ms", 1e3 * statistics.median(seconds), 50.0)


def test_a_scan_of_finished_cells(benchmark, goal, tmp_path):
    """Look at 2,000 finished cells as a resumed run does: manifest, hash and rows of each."""
    from synthetic import run_folder

    store, seconds = run_folder(str(tmp_path / "runs"), cells=2000, images=200), []

    def once():
        before = time.process_time()
        for cell in store.cells():
            assert usable(store, cell).status == "complete"
        seconds.append(time.process_time() - before)

    benchmark.pedantic(once, rounds=3, warmup_rounds=1, iterations=1)
    goal("scan_of_2000_cells_seconds", statistics.median(seconds), 2.0)


def test_a_leaderboard_of_thirty_million_records(benchmark, goal, tmp_path):
    """Build the leaderboard of 3,000 cells of 10,000 records in a process of its own, imports included."""
    from synthetic import run_folder

    run_folder(str(tmp_path / "runs"), cells=3000, images=10_000, shifts=75)
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "runs"), str(tmp_path / "leaderboard.csv")]
    found = []

    def once():
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(tuple(map(float, done.stdout.split())))

    benchmark.pedantic(once, rounds=1, iterations=1)
    goal("leaderboard_of_3000_cells_seconds", found[0][0], 20.0)
    goal("leaderboard_of_3000_cells_gib", found[0][1], 2.0)
