# SPDX-License-Identifier: Apache-2.0
"""Test-time augmentation: a mean of predictions."""

import pytest
import torch
from tta_bench.adapters.ttaug import TTAug

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.method import Inputs
from tta_bench.steps import step
from tta_bench.testing import tiny_images, tiny_inputs


def test_it_keeps_its_promises():
    assert not [result for result in check_method(TTAug()) if result.bad]


def test_it_averages_probabilities(source):
    inputs = tiny_inputs(source, 3, method=TTAug())
    found = step(TTAug(), source, {}, inputs).scores
    expected = torch.stack([source.logits(views).softmax(-1).mean(0) for views in inputs.views])
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(found.sum(-1), torch.ones(3), atol=1e-6)


def test_the_image_alone_is_what_the_source_says(source):
    images = tiny_images(source, 4, 0)
    found = step(TTAug(views=1), source, {}, Inputs(images, views=images[:, None])).scores
    assert torch.allclose(found, source.logits(images).softmax(-1), atol=1e-6)


@pytest.mark.parametrize("values", [{"views": 0}, {"kind": "mixup"}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        TTAug(**values)
