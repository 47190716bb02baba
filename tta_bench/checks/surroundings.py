# SPDX-License-Identifier: Apache-2.0
"""Checks that a method leaves the process as it found it, and draws only from the generator it is given."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tta_bench.checks.bench import Bench, benches
from tta_bench.checks.core import check, promise, skip_unless
from tta_bench.checks.guard import seeded
from tta_bench.checks.trees import difference, leaves
from tta_bench.method import Method

DRAWS = 8


def _settings() -> dict[str, Any]:
    """Return everything in the process that a method could change for others."""
    numpy_state: Any = np.random.get_state()
    return {
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "numpy's random state": (numpy_state[1].tobytes(), numpy_state[2]),
        "Python's random state": random.getstate(),
        "the default dtype": torch.get_default_dtype(),
        "the thread count": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "the matmul precision": torch.get_float32_matmul_precision(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "torch.backends.cudnn.enabled": torch.backends.cudnn.enabled,
        "torch.backends.cudnn.benchmark": torch.backends.cudnn.benchmark,
        "torch.backends.cudnn.deterministic": torch.backends.cudnn.deterministic,
        "torch.backends.mkldnn.enabled": torch.backends.mkldnn.enabled,
    }


@check("Random states, the default dtype, backend flags and the thread count are left as they were found.")
def globals_are_left(method: Method) -> None:
    """Compare the process before and after two steps."""
    for bench in benches(method):
        before = _settings()
        bench.steps(bench.init(), range(2))
        after = _settings()
        changed = sorted(name for name in before if before[name] != after[name])
        promise(not changed, f"{', '.join(changed)} changed during two steps {bench.where}")


@check("A step gives the same scores with gradients on or off outside it, and leaves that as it was.")
def grad_mode_is_left(method: Method) -> None:
    """Take a step under both."""
    for bench in benches(method):
        found = [_under(bench, enabled) for enabled in (True, False)]
        promise(torch.equal(*found), f"scores depend on whether gradients are on outside {bench.where}")


def _under(bench: Bench, enabled: bool) -> Tensor:
    with torch.set_grad_enabled(enabled):
        scores = bench.step(bench.init(), bench.inputs()).scores
        left = torch.is_grad_enabled()
    promise(left == enabled, f"gradients were switched {'on' if left else 'off'} and left so {bench.where}")
    return scores


def _draw(bench: Bench, n: int, seed: int) -> Any:
    return bench.method.draw(bench.source, n, torch.Generator().manual_seed(seed))


@check("draw uses no randomness but the generator it is given.", applies="the method draws")
def draws_come_from_the_generator(method: Method) -> None:
    """Draw from equal generators under two states of the global ones."""
    for bench in benches(method):
        with seeded(1):
            first = _draw(bench, 2, 5)
        skip_unless(first is not None, "the method draws nothing")
        with seeded(2):
            second = _draw(bench, 2, 5)
        for path, leaf in leaves(first).items():
            promise(
                isinstance(leaf, Tensor), f"the draws' {path} is a {type(leaf).__name__}, expected a tensor"
            )
        change = difference(first, second)
        promise(not change, f"the draws' {change} between equal generators {bench.where}")


@check("Draws for one image differ from one call to the next, and have one row.", applies="the method draws")
def draws_vary(method: Method) -> None:
    """Draw several times from one generator."""
    for bench in benches(method):
        generator = torch.Generator().manual_seed(5)
        each = [bench.method.draw(bench.source, 1, generator) for _ in range(DRAWS)]
        skip_unless(each[0] is not None, "the method draws nothing")
        differ = any(difference(each[0], other) for other in each[1:])
        promise(differ, f"{DRAWS} draws from one generator are all equal {bench.where}")
        if bench.alone or method.card.vmappable:
            rows = {path: leaf.shape[:1] for path, leaf in leaves(each[0]).items()}
            wrong = [path for path, shape in rows.items() if tuple(shape) != (1,)]
            promise(not wrong, f"the draws' {', '.join(wrong)} must have a leading axis of 1 for one image")
