# SPDX-License-Identifier: Apache-2.0
"""The overhead of the runner, the command line and the leaderboard."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import timm
import torch

from tta_bench.data.dataset import Shift
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.stream import Part, Stream
from tta_bench.engine.cell import CellJob, CellRunner
from tta_bench.hyperparameters import create_method
from tta_bench.method import Task
from tta_bench.models.classifier import Classifier
from tta_bench.models.source import SourceModel
from tta_bench.records.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "records"))
CLASSES = tuple(f"class {index}" for index in range(10))
BATCH, BATCHES, SIDE = 64, 12, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class InMemory:
    """Random images that are held ready."""

    data_hash = "in memory"

    def __init__(self, count):
        self.ids = [f"image/{index}" for index in range(count)]
        self.labels = np.arange(count) % len(CLASSES)
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)

    def __len__(self):
        return len(self.ids)

    def load(self, positions, preprocess):
        return self.pixels[positions[0] : positions[-1] + 1]


def resnet18():
    """Return a ResNet-18 with random weights, as a plain module."""
    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=len(CLASSES)).eval()


def test_runner_over_a_bare_loop(benchmark, goal, tmp_path):
    """Time `source` with its clocks, scores, records and files against the same forward passes alone."""
    images = InMemory(BATCH * BATCHES)
    stream = Stream([Part(Shift("memory"), images, np.arange(len(images)))], BATCH, Preprocess((SIDE, SIDE)))
    plain = resnet18()
    source = SourceModel(
        Classifier(resnet18(), len(CLASSES)),
        name="timm/resnet18",
        kind="classifier",
        class_names=CLASSES,
        mean=MEAN,
        std=STD,
        preprocess=Preprocess((SIDE, SIDE)),
    )
    from synthetic import manifest

    store = Store(str(tmp_path / "runs")).open(create=True)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))

    def bare():
        with torch.no_grad():
            for start in range(0, len(images), BATCH):
                x = images.pixels[start : start + BATCH].float() / 255
                plain((x - mean) / std).argmax(-1)

    def ours(probe=False):
        with store.writer("cell", resume=False) as writer:
            job = CellJob(
                method=create_method("source"),
                source=source,
                stream=stream,
                reset="image",
                seed=0,
                task=Task(len(CLASSES), CLASSES, BATCH),
                scores=None,
                probe_memory=probe,
            )
            CellRunner(job, writer, lambda images: None).run()
            writer.finish(manifest("cell"))

    ratios, rounds = [], 7
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    bare(), ours()

    def pair():
        times = []
        for work in (ours, bare):
            start = clock()
            work()
            times.append(clock() - start)
        ratios.append(times[0] / times[1])

    benchmark.pedantic(pair, rounds=rounds, iterations=1)
    benchmark.extra_info |= {"ratios": ratios, "threads": torch.get_num_threads(), "batches": BATCHES}
    goal("runner_over_bare_loop", statistics.median(ratios), 1.03)


def _cpu_seconds(*command):
    """Return the median process CPU seconds of a command over five runs, after one that warms the caches."""
    seconds = []
    for _ in range(6):
        before = os.times()
        subprocess.run([sys.executable, "-m", "tta_bench", *command], check=True, capture_output=True)
        after = os.times()
        seconds.append(
            after.children_user - before.children_user + after.children_system - before.children_system
        )
    return statistics.median(seconds[1:])


def test_start_up_of_the_command_line(benchmark, goal):
    """Measure the CPU time of help and of a listing, imports included."""
    seconds = {}

    def measure():
        seconds["help"] = _cpu_seconds("--help")
        seconds["list"] = _cpu_seconds("list", "methods")

    benchmark.pedantic(measure, rounds=1, iterations=1)
    benchmark.extra_info |= seconds
    goal("help_cpu_seconds", seconds["help"], 0.3)
    goal("list_methods_cpu_seconds", seconds["list"], 1.0)


MEASURED = """
import sys, time
start = time.perf_counter()
from tta_bench.reports.leaderboard import leaderboard, write_csv
rows = leaderboard([sys.argv[1]])
write_csv(rows, sys.argv[2])
seconds = time.perf_counter() - start
with open("/proc/self/status") as status:
    peak = next(line for line in status if line.startswith("VmHWM"))
print(seconds, int(peak.split()[1]) / 2**20)
"""


def test_leaderboard_over_a_million_records(benchmark, goal, tmp_path):
    """Build the leaderboard of 1,000,000 records in 200 cells in a process of its own, imports included."""
    from synthetic import run_folder

    run_folder(str(tmp_path / "runs"), cells=200, images=5000)
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "runs"), str(tmp_path / "leaderboard.csv")]
    found = []

    def measure():
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(tuple(map(float, done.stdout.split())))

    benchmark.pedantic(measure, rounds=3, warmup_rounds=1, iterations=1)
    seconds, gibibytes = (statistics.median(values) for values in zip(*found, strict=True))
    benchmark.extra_info |= {"seconds": seconds, "peak_gib": gibibytes}
    goal("leaderboard_million_seconds", seconds, 3.0)
    goal("leaderboard_million_gib", gibibytes, 1.0)
