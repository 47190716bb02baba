# SPDX-License-Identifier: Apache-2.0
"""The full grid over many GPUs: the executors' own schedule, with recorded costs, in simulated time.

60 methods x 75 cells of ImageNet-C (15 corruptions at 5 severities) x 50,000 images. What a method costs beside the
bare source model is what it cost on pocket-c (``results/pocket/online.csv``); a method without a recorded cost takes
that of one with. The source model's speed on a GPU is an assumption and scales every hour alike.

``python benchmarks/simulate_grid.py [IMAGES_PER_SECOND]``
"""

import csv
import heapq
import sys
from pathlib import Path
from typing import NamedTuple

from tta_bench.engine.executors.schedule import Schedule
from tta_bench.engine.executors.task import Task
from tta_bench.spec import Cell

ROOT = Path(__file__).parents[1]
METHODS, IMAGES, WORKERS = 60, 50_000, (1, 8, 64, 512)
SPEED = 1000.0
"""Images per second of the source model on one GPU: an assumption."""
BOOT = 20.0
"""Seconds until a worker has imported torch and loaded a model: an assumption."""
FLUSH_SECONDS, LONG = 5.0, 3600.0


class Outcome(NamedTuple):
    """One simulated run."""

    workers: int
    shards: int
    hours: float
    busy: float
    tasks: int
    longest: float


def costs():
    """Return the seconds per image of each method beside those of the source model, as recorded, 60 of them."""
    with (ROOT / "results/pocket/online.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    source = next(float(row["ms_mean"]) for row in rows if row["method"] == "source")
    known = [(row["method"], float(row["ms_mean"]) / source, row["reset"]) for row in rows]
    return [
        (f"{name}-{index}", factor, reset)
        for index, (name, factor, reset) in enumerate((known * 3)[:METHODS])
    ]


def tasks(shards):
    """Return the tasks of the grid and the seconds of each."""
    made, seconds = [], {}
    for severity in range(1, 6):
        for kind in range(15):
            for name, factor, reset in costs():
                cell = Cell(
                    method=name, hyperparameters={}, method_hash="", model="m", dataset="imagenet-c",
                    shifts=(f"imagenet-c:kind{kind}:{severity}",), subset="full", batch_size=64, reset=reset,
                )  # fmt: skip
                count = shards if reset == "image" else 1
                for index in range(count):
                    task = Task(len(made), cell, index, count)
                    made.append(task)
                    seconds[task.number] = IMAGES * factor / SPEED / count
    return made, seconds


def simulate(workers, shards=1):
    """Hand the tasks to so many workers, each taking the next one that the schedule gives it when it is free."""
    made, seconds = tasks(shards)
    schedule, free, end = Schedule(made), [(BOOT, str(number)) for number in range(workers)], 0.0
    heapq.heapify(free)
    while free:
        now, worker = heapq.heappop(free)
        task = schedule.take(worker)
        if task is not None:
            end = max(end, now + seconds[task.number])
            heapq.heappush(free, (now + seconds[task.number], worker))
    total = sum(seconds.values())
    return Outcome(
        workers, shards, end / 3600, total / (workers * end), len(made), max(seconds.values()) / 3600
    )


def main(speed):
    """Print the table."""
    globals()["SPEED"] = speed
    print(f"source model at {speed:g} images/s per GPU")
    print("workers  shards  hours  busy  tasks/hour  longest task, h  parts/s written")
    for workers in WORKERS:
        for shards in (1, 16):
            one = simulate(workers, shards)
            print(
                f"{one.workers:7}  {one.shards:6}  {one.hours:5.1f}  {one.busy:4.0%}  {one.tasks / one.hours:10.0f}  "
                f"{one.longest:15.2f}  {workers / FLUSH_SECONDS:15.1f}"
            )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else SPEED)
