# SPDX-License-Identifier: Apache-2.0
"""The text tower under other norm tensors, against the tower with these tensors written into it."""

import copy

import open_clip
import torch
from torch.nn import functional as F

from tta_bench.models.text import TextSide
from tta_bench.testing import tiny_clip


def test_the_norm_layers_of_the_text_tower_alone_are_found():
    model = open_clip.create_model("ViT-B-32", pretrained=None)
    text = TextSide(model, lambda prompts: None, (), (), scale=torch.ones(()))
    found = text.normalisation()
    assert len(found) == 4 * 12 + 2
    assert {"ln_final.weight", "transformer.resblocks.11.ln_2.bias"} <= set(found)
    assert not any(name.startswith("visual") for name in found)


def test_prototypes_with_other_tensors_are_those_of_a_tower_that_has_them():
    text = tiny_clip(dtype=torch.float64).text
    tensors = {name: p + 0.3 * torch.randn(p.shape) for name, p in text.normalisation().items()}
    plain = text.prototypes()
    found = text.prototypes_with(tensors)
    changed = copy.deepcopy(text._model)
    changed.load_state_dict({**changed.state_dict(), **tensors})
    other = TextSide(changed, text._tokenizer, text.class_names, text.templates, scale=text.scale)
    torch.testing.assert_close(found, other.prototypes())
    torch.testing.assert_close(text.prototypes_with({}), plain)
    assert not torch.allclose(found, plain)
    assert torch.equal(text.prototypes_with({}), text.prototypes_with({}))


def test_gradients_flow_to_the_tensors():
    text = tiny_clip(dtype=torch.float64).text
    leaves = {name: p.clone().requires_grad_() for name, p in text.normalisation().items()}
    found = text.prototypes_with(leaves)
    target = F.normalize(torch.randn(found.shape[1], dtype=torch.float64), dim=0)
    grads = torch.autograd.grad((found @ target).sum(), [*leaves.values()])
    assert all(grad.any() for grad in grads)
