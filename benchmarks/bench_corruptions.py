# SPDX-License-Identifier: Apache-2.0
"""Compare the speed of the corruptions with the imagecorruptions package, in one run and on one thread.

Run ``python benchmarks/bench_corruptions.py`` or ``pytest benchmarks/bench_corruptions.py``; with ``--output FILE``
the script writes the figures and their conditions to a CSV file. Times are CPU time of the process, medians over
repeats, reference and ours in turn. The package does not run on current NumPy and scikit-image; what has changed
there is supplied here before it is imported.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import math
import platform
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from tta_bench.data.corruptions import CORRUPTIONS, EXTRA, corrupt
from tta_bench.spec.whole import whole

GEOMEAN_GOAL, FLOOR_GOAL, SMALL_GOAL = 6.0, 0.95, 10.0
OWN_GOALS = {"glass_blur": 80.0, "zoom_blur": 10.0}
LARGE, SMALL = 224, 32
LARGE_BATCH, SMALL_BATCH, SMALL_REFERENCE = 8, 256, 8
SEVERITIES = (3, 5)
SLOW_REFERENCE = ("glass_blur",)
MISSING = (
    "imagecorruptions is not installed, so there is nothing to compare with: pip install imagecorruptions"
)

Report = Callable[[str, float, float], None]
Reference = Callable[[np.ndarray, str, int], np.ndarray]


class Figure(NamedTuple):
    """CPU milliseconds per image of one corruption at one severity and size."""

    corruption: str
    severity: int
    size: int
    batch: int
    reference_ms: float
    ours_ms: float

    @property
    def ratio(self) -> float:
        """Return how many times faster ours is."""
        return self.reference_ms / self.ours_ms


def load_reference() -> Reference | None:
    """Return the reference's function, patched to run on current libraries; None if it is not installed."""
    if importlib.util.find_spec("imagecorruptions") is None:
        return None
    if importlib.util.find_spec("pkg_resources") is None:
        stub = types.ModuleType("pkg_resources")
        stub.resource_filename = _resource_filename
        sys.modules["pkg_resources"] = stub
    warnings.simplefilter("ignore")
    import cv2
    import imagecorruptions.corruptions as module
    from imagecorruptions import corrupt as reference

    cv2.setNumThreads(1)
    if not hasattr(np, "float_"):
        np.float_ = np.float64
    smooth = module.gaussian

    def gaussian(
        image: np.ndarray, *rest: object, multichannel: bool = False, **others: object
    ) -> np.ndarray:
        return smooth(image, *rest, channel_axis=-1 if multichannel else None, **others)

    module.gaussian = gaussian
    return lambda image, name, severity: reference(image, severity=severity, corruption_name=name)


def _resource_filename(package: str, resource: str) -> str:
    return str(Path(sys.modules[package.split(".")[0]].__file__).parent / resource)


def pictures(count: int, size: int) -> torch.Tensor:
    """Return smooth random images (count, 3, size, size) uint8 with the contrast of photographs."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 12, 12, generator=generator) * 255
    fine = torch.randn(count, 3, size, size, generator=generator) * 8
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return (smooth + fine).clamp(0, 255).to(torch.uint8)


def cpu_ms(work: Callable[[], object]) -> float:
    """Return the CPU milliseconds of one call."""
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1e3


def compare(reference: Reference, name: str, severity: int, size: int, repeats: int) -> Figure:
    """Return the median times of one corruption."""
    batch = LARGE_BATCH if size == LARGE else SMALL_BATCH
    images = pictures(batch, size)
    sample = 1 if name in SLOW_REFERENCE and size == LARGE else min(batch, SMALL_REFERENCE)
    arrays = [image.permute(1, 2, 0).contiguous().numpy() for image in images[:sample]]
    corrupt(images, name, severity, 0, scale="imagenet")
    reference(arrays[0], name, severity)
    theirs, ours = [], []
    for _ in range(3 if name in SLOW_REFERENCE else repeats):
        theirs.append(cpu_ms(lambda: [reference(array, name, severity) for array in arrays]) / sample)
        ours.append(cpu_ms(lambda: corrupt(images, name, severity, 0, scale="imagenet")) / batch)
    return Figure(name, severity, size, batch, statistics.median(theirs), statistics.median(ours))


def print_goal(label: str, value: float, goal: float) -> None:
    """Print one line about a goal."""
    print(f"RATIO {label} {value:.2f} {goal:g} {'met' if value >= goal else 'missed'}", flush=True)


def geometric_mean(values: list[float]) -> float:
    """Return the geometric mean."""
    return math.exp(statistics.fmean(map(math.log, values)))


def large_goals(reference: Reference, repeats: int, report: Report) -> list[Figure]:
    """Compare all corruptions on 224 x 224 images and report the goals."""
    figures = []
    for name in CORRUPTIONS + EXTRA:
        rows = [compare(reference, name, severity, LARGE, repeats) for severity in SEVERITIES]
        for row in rows:
            label = f"{name}:{row.severity}" if name in CORRUPTIONS else f"extra:{name}:{row.severity}"
            report(label, row.ratio, OWN_GOALS.get(name, FLOOR_GOAL))
        figures += rows
    fifteen = [row.ratio for row in figures if row.corruption in CORRUPTIONS]
    report("geometric_mean", geometric_mean(fifteen), GEOMEAN_GOAL)
    report("slowest", min(fifteen), FLOOR_GOAL)
    return figures


def small_goal(reference: Reference, repeats: int, report: Report) -> list[Figure]:
    """Compare the fifteen together on a batch of 32 x 32 images."""
    figures = [
        compare(reference, name, severity, SMALL, repeats) for name in CORRUPTIONS for severity in SEVERITIES
    ]
    ratio = sum(row.reference_ms for row in figures) / sum(row.ours_ms for row in figures)
    report(f"all_15_at_{SMALL}x{SMALL}_batch_{SMALL_BATCH}", ratio, SMALL_GOAL)
    return figures


def processor() -> str:
    """Return the model name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write(path: Path, figures: list[Figure]) -> None:
    """Write the figures and their conditions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part, part.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        conditions = ("cpu", "threads", "torch", "numpy", "date")
        writer.writerow(
            ("corruption", "severity", "size", "batch", "reference_ms", "ours_ms", "ratio", *conditions)
        )
        shared = (processor(), 1, torch.__version__, np.__version__, date.today().isoformat())
        for row in figures:
            times = (f"{row.reference_ms:.3f}", f"{row.ours_ms:.3f}", f"{row.ratio:.2f}")
            writer.writerow((row.corruption, row.severity, row.size, row.batch, *times, *shared))


def measure(reference: Reference, repeats: int, report: Report) -> list[Figure]:
    """Compare everything on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return large_goals(reference, repeats, report) + small_goal(reference, repeats, report)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore")  # the reference is old
def test_speed_over_imagecorruptions(goal):
    """Compare all corruptions in one run."""
    reference = load_reference()
    if reference is None:
        pytest.skip(MISSING)
    measure(reference, 3, lambda label, value, target: goal(label, value, target, at_most=False))


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description="Speed of the corruptions against imagecorruptions.")
    parser.add_argument("--repeats", type=int, default=5, help="repeats per figure (default: 5)")
    parser.add_argument("--output", type=Path, help="CSV file for the figures")
    arguments = parser.parse_args()
    reference = load_reference()
    if reference is None:
        print(MISSING)
        return
    figures = measure(reference, arguments.repeats, print_goal)
    if arguments.output:
        write(arguments.output, figures)


if __name__ == "__main__":
    main()
