# SPDX-License-Identifier: Apache-2.0
"""The image tower of pocket-vit-clip: timm's own VisionTransformer over a convolutional stem.

Importing this module registers ``pocket_vit`` with timm, so open_clip's timm trunks can make it. Its tokens are
those of any VisionTransformer: the class token first, then 8x8 patch tokens in rows.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import HybridEmbed
from torch import nn

from tta_bench.pocket.nets import MEAN, STD
from tta_bench.pocket.scenes.spec import CLASS_NAMES, SIDE

WIDTH, DEPTH, HEADS, MLP_RATIO = 64, 4, 4, 3.0
STEM = (24, 48)
STEM_GROUPS = 4


def stem(in_chans: int = 3) -> nn.Sequential:
    """Return two 3x3 convolutions of stride 2 with GroupNorm: (N, 3, 32, 32) to (N, 48, 8, 8)."""
    layers: list[nn.Module] = []
    for inside, outside in zip((in_chans, *STEM), STEM, strict=False):
        layers += [
            nn.Conv2d(inside, outside, 3, 2, 1, bias=False),
            nn.GroupNorm(STEM_GROUPS, outside),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


default_cfgs = generate_default_cfgs(
    {
        "pocket_vit": {
            "num_classes": len(CLASS_NAMES),
            "input_size": (3, SIDE, SIDE),
            "fixed_input_size": True,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": MEAN,
            "std": STD,
            "first_conv": "patch_embed.backbone.0",
            "classifier": "head",
            "license": "apache-2.0",
        }
    }
)


@register_model  # type: ignore[untyped-decorator]
def pocket_vit(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Return a vision transformer of width 64 with four blocks over 8x8 tokens of a convolutional stem."""
    facts = {
        "img_size": SIDE,
        "patch_size": 1,
        "embed_dim": WIDTH,
        "depth": DEPTH,
        "num_heads": HEADS,
        "mlp_ratio": MLP_RATIO,
        "embed_layer": partial(HybridEmbed, backbone=stem(kwargs.get("in_chans", 3))),
    }
    return build_model_with_cfg(VisionTransformer, "pocket_vit", pretrained, **{**facts, **kwargs})
