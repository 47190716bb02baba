# SPDX-License-Identifier: Apache-2.0
"""The source model's predictions are handed on as they are."""

import pytest
import torch
from tta_bench.adapters.source import Source

from tta_bench.steps import step
from tta_bench.testing import tiny_inputs, tiny_source, tiny_task


@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
def test_scores_are_the_source_models_and_do_not_depend_on_the_batch(norm):
    source, method = tiny_source(norm, dtype=torch.float64), Source()
    inputs = tiny_inputs(source, 6, method=method)
    stepped = step(method, source, method.init(source, tiny_task(source, method)), inputs, way="native")
    assert torch.equal(stepped.scores, source.logits(inputs.images))
    alone = torch.cat([source.logits(image[None]) for image in inputs.images])
    torch.testing.assert_close(stepped.scores, alone, rtol=0, atol=1e-12)
    assert method.adapted_tensors(source) == ()
