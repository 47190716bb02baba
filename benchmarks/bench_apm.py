# SPDX-License-Identifier: Apache-2.0
"""The cost of an adaptation by APM: the published configuration, the reference engine and the one that is chosen.

The published configuration is written out below for its cost alone: eight copies of the image, every location of
every copy by itself in chunks of sixteen, the head for colours although nothing asks for them, one `backward` over
all of it. Teacher and texts are left out of both sides.
"""

import csv
import os
import statistics
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from tta_bench.adapters.apm import _fit as fitting
from tta_bench.adapters.apm._adam import Adam
from tta_bench.adapters.apm._dims import SIZES, Student, positional_code

from tta_bench.engine.meter import cpu_peak
from tta_bench.spec.whole import whole

COPIES, CHUNK, FEATURE = 8, 16, 768
PUBLISHED_ITERATIONS, ITERATIONS = 2, 20
ROWS = []


@pytest.fixture(autouse=True)
def one_thread():
    """Compute on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Published(nn.Module):
    """The student in the published configuration, with the layers of the same sizes as `Student`."""

    def __init__(self, dims, feature, heads=8):
        super().__init__()
        first, second, third = dims.widths
        column = (dims.image[0] // dims.patch) * (dims.image[1] // dims.patch)
        inputs = column + dims.code
        self.patches = nn.Conv2d(3, 1, dims.patch, dims.patch)
        self.layers = nn.Sequential(
            nn.Linear(inputs, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(),
            nn.Linear(second, third), nn.ReLU(), nn.Linear(third, feature),
        )  # fmt: skip
        self.colours = nn.Sequential(
            nn.Linear(feature + inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 3)
        )
        self.query = nn.Parameter(torch.zeros(feature))
        self.attention = nn.MultiheadAttention(feature, heads, batch_first=True)
        self.inner, self.outer = (
            positional_code(dims.grid, dim).flatten(1).T for dim in (dims.code, feature)
        )
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.01)

    def forward(self, images):
        """Return the outputs (B, D) and colours (B, L, 3) of images (B, 3, H, W)."""
        column = self.patches(images).flatten(1)[:, None, :]
        places = len(self.inner)
        x = torch.cat([column.expand(-1, places, -1), self.inner.expand(len(images), -1, -1)], dim=2)
        x = x.flatten(0, 1)
        features = colours = x.new_zeros(0)
        for start in range(0, len(x), CHUNK):
            part = x[start : start + CHUNK]
            found = self.layers(part)
            seen = self.colours(torch.cat([found, part], dim=1))
            features = torch.cat([features, found]) if len(features) else found
            colours = torch.cat([colours, seen]) if len(colours) else seen
        features = torch.unflatten(features, 0, (len(images), places)) + self.outer
        query = self.query.expand(len(images), 1, -1)
        return self.attention(query, features, features, need_weights=False)[0][:, 0], colours


def published_iterations(count):
    """Run the published configuration."""
    torch.manual_seed(0)
    dims = SIZES["published"]
    model = Published(dims, FEATURE)
    images = torch.randn(3, *dims.image).expand(COPIES, -1, -1, -1)
    target = torch.randn(FEATURE).expand(COPIES, -1)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    for _ in range(count):
        optimiser.zero_grad()
        predicted, colours = model(images)
        loss = nn.functional.mse_loss(predicted, target) + 0 * colours.mean()
        loss.backward()
        optimiser.step()


def problem(size, n, feature):
    """Return sizes, weights, patches and targets of n students."""
    generator = torch.Generator().manual_seed(0)
    student = Student(SIZES[size], feature)
    images = torch.randn(n, 3, *student.dims.image, generator=generator)
    weights = torch.randn(n, student.size, generator=generator) * 0.01
    return student, weights, student.patches(images), torch.randn(n, feature, generator=generator)


def fit(given, engine, updates, lr):
    """Fit with one engine; the prediction is read after the last update but one, as in a run."""
    student, *rest = given
    return fitting.fit(student, *rest, Adam(lr), updates, way=fitting.Way(engine=engine, keep=False))


def cpu_seconds(work):
    """Return the CPU seconds that this process spent on some work."""
    start = time.process_time()
    work()
    return time.process_time() - start


def note(what, n, iterations, seconds, peak_mib=""):
    """Keep a row of the table: CPU seconds per image of the whole adaptation of 20 iterations."""
    ROWS.append(
        {
            "what": what, "images_at_once": n, "iterations_timed": iterations,
            "cpu_s_per_iteration": f"{seconds / n / iterations:.5g}",
            "cpu_s_per_image": f"{seconds / n / iterations * ITERATIONS:.5g}",
            "peak_mib": peak_mib if peak_mib == "" else f"{peak_mib:.0f}",
            "threads": torch.get_num_threads(), "torch": torch.__version__,
            "processor": processor(), "date": f"{datetime.now(UTC):%Y-%m-%d}",
        }
    )  # fmt: skip


def processor():
    """Return what the system calls the processor."""
    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if Path("/proc/cpuinfo").exists()
        else []
    )
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def test_pocket(benchmark, goal):
    """Time 64 images at once against the reference one image at a time."""
    one, many = problem("pocket", 1, 64), problem("pocket", 64, 64)
    alone, together, ratios = [], [], []

    def pair():
        alone.append(cpu_seconds(lambda: [fit(one, "reference", ITERATIONS - 1, 1e-3) for _ in range(8)]) / 8)
        together.append(cpu_seconds(lambda: fit(many, "auto", ITERATIONS - 1, 1e-3)) / 64)
        ratios.append(together[-1] / alone[-1])

    pair()
    alone.clear(), together.clear(), ratios.clear()
    benchmark.pedantic(pair, rounds=9, iterations=1)
    note("reference, pocket", 1, ITERATIONS, statistics.median(alone))
    note("auto (fast), pocket", 64, ITERATIONS, 64 * statistics.median(together))
    goal("apm_pocket_64_over_reference_1", statistics.median(ratios), 0.25)


def test_published_sizes(benchmark, goal):
    """Time the published configuration for two iterations, and the chosen engine for twenty."""
    given, seconds = problem("published", 1, FEATURE), {}
    fit(given, "auto", 1, 1e-4)

    def work():
        seconds["auto"] = cpu_seconds(lambda: fit(given, "auto", ITERATIONS - 1, 1e-4))
        seconds["published"] = cpu_seconds(lambda: published_iterations(PUBLISHED_ITERATIONS))
        for name in ("fast", "reference"):
            seconds[name] = cpu_seconds(partial(fit, given, name, ITERATIONS - 1, 1e-4))

    benchmark.pedantic(work, rounds=1, iterations=1)
    peaks = {
        "auto": cpu_peak(lambda: fit(given, "auto", 2, 1e-4)),
        "published": cpu_peak(lambda: published_iterations(PUBLISHED_ITERATIONS)),
    }
    published = seconds["published"] / PUBLISHED_ITERATIONS
    note("published configuration", 1, PUBLISHED_ITERATIONS, seconds["published"], peaks["published"])
    for name in ("reference", "fast", "auto"):
        label = "auto (active)" if name == "auto" else name
        note(f"{label}, published sizes", 1, ITERATIONS, seconds[name], peaks.get(name, ""))
    goal("apm_published_over_auto", published * ITERATIONS / seconds["auto"], 100, at_most=False)
    goal("apm_peak_memory_auto_over_published", peaks["auto"] / peaks["published"], 0.6)
    pocket = [float(row["cpu_s_per_image"]) for row in ROWS if row["what"].endswith("(fast), pocket")]
    if pocket:
        goal("apm_published_over_pocket", published * ITERATIONS / pocket[0], 60, at_most=False)


def teardown_module():
    """Write the table where one was asked for."""
    if not os.environ.get("APM_TABLE"):
        return
    with (
        whole(Path(os.environ["APM_TABLE"])) as part,
        part.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, list(ROWS[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(ROWS)
