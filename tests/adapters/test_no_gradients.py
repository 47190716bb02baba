# SPDX-License-Identifier: Apache-2.0
"""Methods whose cards need no gradients: nothing that they do is recorded for a backward pass."""

import pytest
import torch

from tta_bench import registry
from tta_bench.steps import step, way_of
from tta_bench.testing import sources_for, tiny_inputs, tiny_task

FORWARD_ONLY = [
    name
    for name, point in registry.registered("methods").items()
    if point.module.startswith("tta_bench.adapters.")
    and "gradients" not in registry.load("methods", name).card.needs
]


def steps(method, source):
    """Take two steps and return the tensors that autograd saved meanwhile."""
    saved = []
    way = way_of(method, per_image=method.card.reset == "image")
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x),
    ):
        state = method.init(source, tiny_task(source, method))
        for seed in range(2):
            inputs = tiny_inputs(source, 4, method=method, seed=seed)
            state = step(method, source, state, inputs, way=way).state
    return saved


def test_there_are_some():
    assert {"foa", "neo", "norm", "t3a", "unmix-tns"} <= set(FORWARD_ONLY)


@pytest.mark.parametrize("name", FORWARD_ONLY)
def test_no_tensor_is_saved_for_a_backward_pass(name):
    method = registry.load("methods", name)()
    for source in sources_for(method):
        assert not steps(method, source)


def test_saved_tensors_are_noticed():
    method = registry.load("methods", "tent")()
    assert steps(method, sources_for(method)[0])
