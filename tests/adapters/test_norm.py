# SPDX-License-Identifier: Apache-2.0
"""BatchNorm statistics against the library's own layers in training and evaluation mode."""

import pytest
import torch
from torch import nn
from tta_bench.adapters.norm import Norm

from tta_bench.errors import BadInputError
from tta_bench.steps import step
from tta_bench.testing import tiny_images, tiny_inputs, tiny_source, tiny_task


def run(method, source, batches):
    state, scores = method.init(source, tiny_task(source, method)), []
    for images in batches:
        stepped = step(method, source, state, tiny_inputs(source, 1, method=method)._replace(images=images))
        state = stepped.state
        scores.append(stepped.scores)
    return scores, state


def library(source):
    """Return a copy of the network with the library's layers, and these layers."""
    module = source.module()
    return module, [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


@pytest.fixture
def source():
    return tiny_source("batch", dtype=torch.float64)


@pytest.fixture
def batches(source):
    return [tiny_images(source, 6, seed) for seed in (1, 2, 3)]


def test_batch_statistics_are_those_of_training_mode(source, batches):
    module, layers = library(source)
    for layer in layers:
        layer.train()
    for scores, images in zip(run(Norm(), source, batches)[0], batches, strict=True):
        torch.testing.assert_close(scores, module(images), rtol=0, atol=1e-10)


def test_moving_statistics_are_those_that_training_mode_leaves_behind(source, batches):
    module, layers = library(source)
    method = Norm(statistics="ema", momentum=0.3)
    found, state = run(method, source, batches)
    for scores, images in zip(found, batches, strict=True):
        for layer in layers:
            layer.momentum = 0.3
            layer.train()
        module(images)
        torch.testing.assert_close(scores, module.eval()(images), rtol=0, atol=1e-10)
    assert set(state["params"]) == set(method.adapted_tensors(source))
    assert len(state["params"]) == 2 * len(layers)


@pytest.mark.parametrize("alpha", [0.1, 0.7])
def test_mixed_statistics_start_from_the_source_in_every_batch(source, batches, alpha):
    for scores, images in zip(run(Norm("alpha", alpha), source, batches)[0], batches, strict=True):
        module, layers = library(source)
        for layer in layers:
            layer.momentum = alpha

            def mixed(self, args, output):
                self.train()
                nn.BatchNorm2d.forward(self, *args)
                return nn.BatchNorm2d.forward(self.eval(), *args)

            layer.register_forward_hook(mixed)
        torch.testing.assert_close(scores, module(images), rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", [Norm("alpha", 0.0), Norm("ema", momentum=0.0)])
def test_no_share_of_the_batch_leaves_the_source_model(source, batches, method):
    for scores, images in zip(run(method, source, batches)[0], batches, strict=True):
        torch.testing.assert_close(scores, source.logits(images), rtol=0, atol=1e-10)


@pytest.mark.parametrize("statistics", ["batch", "alpha", "ema"])
def test_the_order_of_the_images_in_a_batch_does_not_matter(source, batches, statistics):
    images, order = batches[0], torch.tensor([3, 1, 5, 0, 4, 2])
    straight, shuffled = (run(Norm(statistics), source, [x])[0][0] for x in (images, images[order]))
    torch.testing.assert_close(shuffled, straight[order], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "values", [{"statistics": "median"}, {"alpha": 1.5}, {"momentum": -0.1}, {"alpha": float("nan")}]
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError, match="must"):
        Norm(**values)


def test_the_presets_are_valid():
    assert Norm.presets
    for values in Norm.presets.values():
        made = Norm(**values)
        assert {name: getattr(made, name) for name in values} == dict(values)
