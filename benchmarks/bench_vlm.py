# SPDX-License-Identifier: Apache-2.0
"""The cost of CLIP methods beside hand-written loops, and of variants that share one pass.

Features and class texts are random, with as many classes and dimensions as CLIP ViT-B/16 has on ImageNet. Ours is
timed with the checks of its results and the copies that an explicit state needs; the loops change their tensors in
place.
"""

import itertools
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from tta_bench.engine import kept
from tta_bench.engine.feature_files import Block, FeatureFolder
from tta_bench.hyperparameters import create_method
from tta_bench.method import Inputs, Task
from tta_bench.steps import step, step_variants

sys.path.insert(0, str(Path(__file__).parent))
import cache_loops as loops

CLASSES, DIM, BATCH = 1000, 512, 64
WARM, TIMED, ROUNDS = 3000, 128, 3
SWEEP, SWEEP_SECONDS = 10_000, 60
PER_FILE = 4096
ALPHAS, BETAS = (0.5, 1.0, 2.0, 3.0, 5.0), (1.0, 3.0, 5.0, 8.0)


@pytest.fixture(scope="module")
def text():
    """Class texts (K, D)."""
    return F.normalize(torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(0)), dim=-1)


def features_of(text, count, seed=1):
    """Return features (N, D) whose cosine with their class is 0.1 to 0.3, so that entropies vary."""
    generator = torch.Generator().manual_seed(seed)
    noise = F.normalize(torch.randn(count, DIM, generator=generator), dim=-1)
    cosine = 0.1 + 0.2 * torch.rand(count, 1, generator=generator)
    own = text[torch.randint(CLASSES, (count,), generator=generator)]
    return cosine * own + (1 - cosine.square()).sqrt() * noise


def source_of(text):
    """Return what a method in feature space asks of a source model."""
    side = SimpleNamespace(scale=torch.tensor(100.0), bias=None, prototypes=lambda templates=None: text)
    return SimpleNamespace(
        text=side, name="random", num_classes=CLASSES, device=text.device, dtype=text.dtype
    )


def passed(method, source, state, features, size):
    """Return state and scores after a stream in batches of a size."""
    scores = []
    for batch in torch.split(features, size):
        stepped = step(method, source, state, Inputs(images=None, features=batch))
        state = stepped.state
        scores.append(stepped.scores)
    return state, torch.cat(scores)


def seconds(work):
    """Return how long a call takes; with one thread in CPU seconds, which other work on the machine disturbs less."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begun = clock()
    work()
    return clock() - begun


def test_tda_beside_loops(text, benchmark, goal):
    """Score 128 images with caches that 3,000 have passed through: ours in batches and alone, and both loops."""
    source, method = source_of(text), create_method("tda")
    tail, state = features_of(text, TIMED, seed=2), method.init(source, Task(CLASSES, (), BATCH))
    state, _ = passed(method, source, state, features_of(text, WARM), BATCH)
    by_hand, published = loops.TensorLoop(text), loops.PublishedCache(text)
    expected = passed(method, source, state, tail, BATCH)[1]
    for loop in (by_hand, published):
        loop.fill(state)
        torch.testing.assert_close(loop.step(tail), expected, rtol=1e-3, atol=1e-3)
    works = {
        "batch": lambda: passed(method, source, state, tail, BATCH),
        "single": lambda: passed(method, source, state, tail, 1),
        "by_hand": lambda: by_hand.step(tail),
        "published": lambda: published.step(tail),
    }
    works["batch"](), works["single"]()
    taken = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            taken[name].append(seconds(work) / TIMED * 1e3)
    ms = {name: statistics.median(times) for name, times in taken.items()}
    benchmark.extra_info |= {f"{name}_ms_per_image": value for name, value in ms.items()}
    benchmark.pedantic(works["batch"], rounds=1)
    goal("tda_step_of_64_over_tensor_loop", ms["batch"] / ms["by_hand"], 1.1)
    goal("tda_step_of_1_over_tensor_loop", ms["single"] / ms["by_hand"], 1.1)
    goal("published_cache_over_tda_step_of_64", ms["published"] / ms["batch"], 5, at_most=False)
    goal("published_cache_over_tda_step_of_1", ms["published"] / ms["single"], 5, at_most=False)


def test_tda_sweep(text, benchmark, goal):
    """Score 10,000 features under 20 pairs of alpha and beta, which share one pass over the caches."""
    source, features = source_of(text), features_of(text, SWEEP)
    methods = [create_method("tda", {"alpha": a, "beta": b}) for a, b in itertools.product(ALPHAS, BETAS)]
    state = methods[0].init(source, Task(CLASSES, (), BATCH))

    def sweep():
        now = state
        for batch in torch.split(features, BATCH):
            now, _ = step_variants(methods, source, now, Inputs(images=None, features=batch))

    taken = seconds(sweep)
    alone = seconds(lambda: passed(methods[0], source, state, features, BATCH))
    benchmark.extra_info |= {"sweep_s": taken, "one_variant_s": alone}
    benchmark.pedantic(lambda: None, rounds=1)
    goal("tda_sweep_of_20_seconds", taken, SWEEP_SECONDS)
    goal("tda_sweep_of_20_over_one_variant", taken / alone, len(methods))


def test_reading_the_cache(text, benchmark, goal, tmp_path, monkeypatch):
    """Read 10,000 features from the cache and sum them, so that each page is read, beside a product with texts."""
    monkeypatch.setenv("TTA_BENCH_CACHE", str(tmp_path))
    features = features_of(text, SWEEP)
    folder = FeatureFolder({"images": SWEEP}, PER_FILE)
    starts = range(0, SWEEP, PER_FILE)
    for start in starts:
        block = Block(start, min(start + PER_FILE, SWEEP))
        block.put(range(start, block.stop), features[start : block.stop], None, 1.0)
        folder.keep(block)

    def product():
        return [part @ text.T for part in torch.split(features, PER_FILE)]

    def read():
        blocks = [folder.block(start) for start in starts]
        assert all(block.cached for block in blocks)
        parts = [block.charged(block.start, block.stop, text.device).features for block in blocks]
        return parts, sum(part.sum() for part in parts)

    def first():
        kept._verified.clear()  # as in a process that has compared no checksum yet
        return read()

    assert torch.equal(torch.cat(first()[0]), features)
    works = {"product": product, "first": first, "read": read}
    taken = {name: [] for name in works}
    for _ in range(15):
        for name, work in works.items():
            taken[name].append(seconds(work))
    least = {name: min(times) for name, times in taken.items()}
    benchmark.extra_info |= {f"{name}_ms": 1e3 * value for name, value in least.items()}
    benchmark.pedantic(read, rounds=1)
    goal("product_with_cached_features", 1 + least["read"] / least["product"], 1.05)
