# SPDX-License-Identifier: Apache-2.0
"""An imperative method under `ModuleMethod` against the same loop written by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from tta_bench.checks import check_method
from tta_bench.losses import entropy
from tta_bench.method import Card, ModuleMethod
from tta_bench.steps import step
from tta_bench.testing import tiny_images, tiny_inputs, tiny_source, tiny_task


@dataclass(frozen=True)
class Imperative(ModuleMethod):
    """Minimise entropy over all weights, with the layers in training mode."""

    optimizer: str = "adam"
    lr: float = 1e-3
    momentum: float = 0.9

    card: ClassVar[Card] = Card(
        paper="none",
        needs=frozenset({"gradients"}),
        predicts="before",
        fixed_shapes=False,
        grows=("optimizer",),
    )

    def build(self, source):
        module = source.module().train().requires_grad_(True)
        if self.optimizer == "adam":
            return module, torch.optim.Adam(module.parameters(), lr=self.lr)
        return module, torch.optim.SGD(module.parameters(), lr=self.lr, momentum=self.momentum)

    def step(self, module, optimizer, images):
        logits = module(images)
        optimizer.zero_grad()
        entropy(logits).mean().backward()
        optimizer.step()
        return logits


def by_hand(method, source, batches, resets):
    """One module and one optimiser, made again at each reset: what a plain script would do."""
    scores, module, optimizer = [], *method.build(source)
    for images, reset in zip(batches, resets, strict=True):
        if reset:
            module, optimizer = method.build(source)
        logits = module(images)
        loss = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scores.append(logits.detach())
    return scores, module


METHODS = [
    Imperative(),
    Imperative(optimizer="sgd", lr=0.05),
    Imperative(optimizer="sgd", lr=0.05, momentum=0.0),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.optimizer}-{m.momentum}")
@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
def test_steps_and_resets_are_those_of_a_loop_written_by_hand(method, norm):
    source = tiny_source(norm, dtype=torch.float64)
    batches = [tiny_images(source, 4, seed) for seed in range(6)]
    resets = [True, False, False, True, False, False]
    expected, module = by_hand(method, source, batches, resets)
    initial = method.init(source, tiny_task(source, method))
    state = initial
    for images, reset, scores in zip(batches, resets, expected, strict=True):
        inputs = tiny_inputs(source, 4, method=method)._replace(images=images)
        stepped = step(method, source, initial if reset else state, inputs)
        state = stepped.state
        assert stepped.fused
        assert torch.allclose(stepped.scores, scores, rtol=1e-12, atol=1e-12)
    for name, tensor in module.state_dict().items():
        assert torch.allclose(state["module"][name], tensor, rtol=1e-12, atol=1e-12), name
    moved = sum(not torch.equal(state["module"][n], initial["module"][n]) for n in initial["module"])
    assert moved > 10


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.optimizer}-{m.momentum}")
def test_an_imperative_method_keeps_the_contract(method):
    assert [result for result in check_method(method) if result.bad] == []


def test_a_module_is_a_copy_with_the_library_s_layers():
    source = tiny_source("batch")
    module = source.module()
    assert any(type(child) is nn.BatchNorm2d for child in module.modules())
    assert not module.training
    owned = {tensor.data_ptr() for tensor in (*source.params.values(), *source.buffers.values())}
    assert not owned & {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    images = tiny_images(source, 3, 0)
    assert torch.equal(module(images), source.logits(images))
