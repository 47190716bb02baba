# SPDX-License-Identifier: Apache-2.0
"""CALIP: attention written out for one image, and towers without patch features."""

import pytest
import torch
from torch.nn import functional as F
from tta_bench.adapters.calip import Calip

from tta_bench.errors import IncompatibleError
from tta_bench.method import Inputs
from tta_bench.models.loading import load_model
from tta_bench.models.patches import patch_features
from tta_bench.testing import tiny_clip, tiny_images, tiny_task

CLASSES = ("a", "b", "c")
ignore_jit = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")


def test_it_is_attention_between_patches_and_texts():
    source, method = tiny_clip(dtype=torch.float64), Calip(texts_weight=2.0, patches_weight=0.1, scale=0.0)
    images = tiny_images(source, 3, 0)
    state = method.init(source, tiny_task(source, method))
    scores = method.adapt(source, state, Inputs(images)).logits
    text, tokens = source.text.prototypes(), source.forward(images).tokens
    for image in range(3):
        g, patches = F.normalize(tokens[image, 0], dim=-1), F.normalize(tokens[image, 1:], dim=-1)
        attention = 2 * patches @ text.T
        guided_texts = attention.softmax(0).T @ patches
        guided_patches = attention.softmax(1) @ text
        pooled = guided_patches.mean(0) + guided_patches.max(0).values
        logits = g @ text.T + 2.0 * guided_texts @ g + 0.1 * pooled @ text.T
        torch.testing.assert_close(scores[image], source.text.scale * logits)


@ignore_jit
@pytest.mark.parametrize(("name", "patches"), [("open_clip/ViT-B-32", 49), ("open_clip/RN50", 49)])
def test_patch_features_share_the_space_of_the_image_feature(name, patches):
    source = load_model(name, CLASSES, pretrained=False)
    images = torch.rand(1, *source.image_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, found = source.patches(images)
        torch.testing.assert_close(features, source.encode(images), rtol=1e-4, atol=1e-5)
    assert found.shape == (1, patches, features.shape[1])


def test_a_tower_without_patch_features_is_told():
    class Plain(torch.nn.Module):
        def forward(self, x):
            return x

    assert patch_features(Plain(), torch.zeros(1, 3, 4, 4)) is None
    source, method = tiny_clip(), Calip()
    state = method.init(source, tiny_task(source, method))
    source._network.patches = lambda x: None
    with pytest.raises(IncompatibleError, match="patch features in the space of the texts"):
        method.adapt(source, state, Inputs(tiny_images(source, 1, 0)))
