# SPDX-License-Identifier: Apache-2.0
"""Check that a method keeps its tensors on the device of its model, on a double of CUDA that any machine has."""

from __future__ import annotations

import torch
from torch import Tensor

from tta_bench.checks.bench import Bench, benches
from tta_bench.checks.core import check, promise
from tta_bench.checks.trees import tensors
from tta_bench.method import Method
from tta_bench.testing import sources_for
from tta_bench.testing.device import device_double

STEPS = 2


@check("On a CUDA device the method works as on the CPU; a double stands in for the device.")
def device_equals_cpu(method: Method) -> None:
    """Take two steps on the CPU and on the double, which refuses what CUDA refuses; one model is enough."""
    bench = next(benches(method, precisions=("float32",)))
    _, expected = bench.steps(bench.init(), range(STEPS))
    with device_double() as device:
        scores = steps_on(device, bench)
    for found, wanted in zip(scores, expected, strict=True):
        bench.close(found, wanted, "scores on a CUDA device differ from those on the CPU")


def steps_on(device: torch.device, bench: Bench) -> list[Tensor]:
    """Return the scores of two steps that are taken on a device, on the CPU again."""
    models = sources_for(bench.method, dtype=bench.source.dtype, device=device)
    there = Bench(bench.method, next(model for model in models if model.name == bench.source.name))
    state = there.init()
    places = {path: leaf.device for path, leaf in tensors(state).items()}
    after, scores = there.steps(state, range(STEPS))
    for one in scores:
        promise(one.device == device, f"scores lie on {one.device}, and the model on {device}, {bench.where}")
    for path, leaf in tensors(after).items():
        before = places.get(path, leaf.device)
        promise(
            leaf.device == before, f"{path} of the state went from {before} to {leaf.device} {bench.where}"
        )
    return [one.cpu() for one in scores]
