# SPDX-License-Identifier: Apache-2.0
"""MEMO: one step on an image's views, each image by itself."""

import pytest
import torch
from tta_bench.adapters.memo import Memo

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.losses import marginal_entropy
from tta_bench.method import Inputs, ViewPolicy
from tta_bench.norms import blend
from tta_bench.steps import step, way_of
from tta_bench.testing import tiny_images, tiny_inputs, tiny_source, tiny_task


def test_it_keeps_its_promises():
    assert not [result for result in check_method(Memo()) if result.bad]


@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
def test_the_step_is_that_of_a_plain_loop(norm):
    source, method = tiny_source(norm), Memo(lr=0.05, alpha=0.2)
    inputs = tiny_inputs(source, 3, method=method)
    start = method.init(source, tiny_task(source, method))
    found = step(method, source, start, inputs, way=way_of(method, per_image=True)).scores
    for image, views, scores in zip(inputs.images, inputs.views, found, strict=True):
        leaves = {name: p.clone().requires_grad_() for name, p in source.weights().items()}
        optimizer = torch.optim.SGD(list(leaves.values()), lr=0.05)
        mean = source.logits(views, leaves, norm=blend(0.2, detach=True)).softmax(-1).mean(0)
        (-(mean * mean.log()).sum()).backward()
        optimizer.step()
        with torch.no_grad():
            expected = source.logits(image[None], leaves, norm=blend(0.2))[0]
        assert torch.allclose(scores, expected, atol=1e-5)


def test_the_mean_prediction_is_each_image_s_own(grouped):
    method = Memo(lr=0.01)
    inputs = tiny_inputs(grouped, 4, method=method)
    state = method.adapt(grouped, method.init(grouped, tiny_task(grouped, method)), inputs).state
    leaves = {name: p.clone().requires_grad_() for name, p in grouped.weights().items()}
    sum(marginal_entropy(grouped.logits(views, leaves)) / 4 for views in inputs.views).backward()
    for name, leaf in leaves.items():
        assert torch.allclose(state["params"][name], leaf.detach() - 0.01 * leaf.grad, atol=1e-6)


def test_a_single_view_of_a_single_image_is_entropy_minimisation(grouped):
    images = tiny_images(grouped, 1, 0)
    method = Memo(views=1, lr=0.1)
    start = method.init(grouped, tiny_task(grouped, method))
    stepped = step(method, grouped, start, Inputs(images, views=images[:, None]))
    before = marginal_entropy(grouped.logits(images)[:, None])
    assert marginal_entropy(stepped.scores[:, None]) < before


def test_the_number_of_views_is_asked_of_the_runner():
    assert Memo(views=7).view_policy() == ViewPolicy(7, "augmix")
    assert Memo(**Memo.presets["imagenet-c"]).view_policy().count == 64


@pytest.mark.parametrize("values", [{"views": 0}, {"alpha": 1.5}, {"optimizer": "lion"}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        Memo(**values)
