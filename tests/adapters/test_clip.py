# SPDX-License-Identifier: Apache-2.0
"""Compare zero-shot scores with prototypes that are built here, prompt by prompt."""

import pytest
import torch
from tta_bench.adapters.clip import Clip

from tta_bench.errors import IncompatibleError
from tta_bench.steps import step
from tta_bench.testing import tiny_clip, tiny_inputs, tiny_source, tiny_task


def scores_of(method, source, inputs):
    return step(method, source, method.init(source, tiny_task(source, method)), inputs, way="native").scores


def by_hand(source, features, templates):
    rows = []
    for name in source.class_names:
        each = torch.cat([source.text.features([template.format(name)]) for template in templates])
        mean = (each / each.norm(dim=1, keepdim=True)).mean(0)
        rows.append(mean / mean.norm())
    return source.text.scale * features / features.norm(dim=1, keepdim=True) @ torch.stack(rows).T


def test_scores_are_scaled_cosines_with_the_mean_prompt():
    source, method = tiny_clip(dtype=torch.float64), Clip()
    inputs = tiny_inputs(source, 5, method=method)
    expected = by_hand(source, inputs.features, source.text.templates)
    torch.testing.assert_close(scores_of(method, source, inputs), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(source.logits(inputs.images), expected, rtol=0, atol=1e-10)


def test_a_model_without_texts_is_refused():
    source = tiny_source()
    with pytest.raises(IncompatibleError, match="text side"):
        Clip().init(source, tiny_task(source, Clip()))
