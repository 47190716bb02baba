# SPDX-License-Identifier: Apache-2.0
"""Zero-shot scores against prototypes that are built here, prompt by prompt."""

import pytest
import torch
from tta_bench.adapters._prompts import NAMES, prompt_templates
from tta_bench.adapters.clip import Clip

from tta_bench.errors import BadInputError, IncompatibleError
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


@pytest.mark.parametrize("templates", ["dataset", "single", "seven", "ensemble"])
def test_scores_are_scaled_cosines_with_the_mean_prompt(templates):
    source, method = tiny_clip(dtype=torch.float64), Clip(templates=templates)
    inputs = tiny_inputs(source, 5, method=method)
    chosen = source.text.templates if templates == "dataset" else prompt_templates(templates)
    expected = by_hand(source, inputs.features, chosen)
    torch.testing.assert_close(scores_of(method, source, inputs), expected, rtol=0, atol=1e-10)


def test_the_dataset_templates_give_the_source_models_own_scores():
    source, method = tiny_clip(), Clip()
    inputs = tiny_inputs(source, 5, method=method)
    torch.testing.assert_close(scores_of(method, source, inputs), source.logits(inputs.images))


def test_the_prompt_sets_differ():
    source = tiny_clip()
    inputs = tiny_inputs(source, 5, method=Clip())
    found = [scores_of(Clip(templates=name), source, inputs) for name in NAMES]
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[1], found[2])


def test_an_unknown_prompt_set_and_a_model_without_texts_are_refused():
    with pytest.raises(BadInputError, match="templates must be"):
        Clip(templates="many")
    source = tiny_source()
    with pytest.raises(IncompatibleError, match="text side"):
        Clip().init(source, tiny_task(source, Clip()))
