# SPDX-License-Identifier: Apache-2.0
"""Features of an image's patches in the space of the class texts, for the visual towers that have such."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def patch_features(visual: nn.Module, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the features (N, D) of images and those (N, P, D) of their patches, both raw; None for other towers.

    A transformer that reads a class token sends its patch tokens through the same norm and projection. The attention
    pool of CLIP's ResNets is read at every position instead of at the mean alone. A tower may also provide both by a
    method ``patches``.

    Args:
        visual: The visual tower of open_clip, which may hold a transformer of timm, or one with ``patches``.
        x: (N, C, H, W), normalised.

    Source: CALIP, arXiv:2209.14169, section 3.2.
    """
    tower: Any = visual
    if hasattr(tower, "patches"):
        patches: tuple[Tensor, Tensor] = tower.patches(x)
        return patches
    if getattr(tower, "pool_type", None) == "tok" and getattr(tower, "attn_pool", None) is None:
        return _of_transformer(tower, x)
    if getattr(getattr(tower, "trunk", None), "global_pool", None) == "token":
        return _of_timm(tower, x)
    if hasattr(tower, "attnpool") and hasattr(tower, "layer4"):
        return _of_resnet(tower, x)
    return None


def _of_transformer(visual: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    features, tokens = visual(x)  # the tower hands back its tokens too, see `models.clip`
    if visual.final_ln_after_pool:
        tokens = visual.ln_post(tokens)
    return features, tokens if visual.proj is None else tokens @ visual.proj


def _of_timm(visual: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    trunk = visual.trunk
    tokens = trunk.forward_features(x)
    patches = trunk.fc_norm(tokens[:, trunk.num_prefix_tokens :])
    return visual.head(trunk.forward_head(tokens)), visual.head(patches)


def _of_resnet(visual: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    x = visual.stem(x)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    pool, maps = visual.attnpool, x.flatten(2).permute(2, 0, 1)  # (P, N, C)
    tokens = torch.cat([maps.mean(0, keepdim=True), maps]) + pool.positional_embedding[:, None].to(x.dtype)
    biases = torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias])
    found, _ = F.multi_head_attention_forward(
        tokens, tokens, tokens, tokens.shape[-1], pool.num_heads, None, biases, None, None, False, 0.0,
        pool.c_proj.weight, pool.c_proj.bias, training=False, need_weights=False, use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight, k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
    )  # fmt: skip
    return found[0], found[1:].transpose(0, 1)
