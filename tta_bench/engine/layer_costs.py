# SPDX-License-Identifier: Apache-2.0
"""Multiply-adds of a network by formula: layer by layer, from its sizes and the shape of its input.

Products of bare tensors, such as CLIP's projection of one token, are left out where no attention is made of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

PLAIN_ATTENTION = (
    "timm.layers.attention.Attention",
    "timm.models.vision_transformer.Attention",
    "timm.models.swin_transformer.WindowAttention",
)
"""Attentions over tokens (N, L, D) that call their maps as layers."""
POOLING = ("open_clip.modified_resnet.AttentionPool2d",)
"""CLIP's attention over a feature map and its mean, whose maps are never called."""
Maps = nn.Linear | nn.modules.conv._ConvNd


def layers_multiply_adds(work: Callable[[], object]) -> int | None:
    """Return the multiply-adds of all layers that are called in some work.

    None if one of them has no formula here: an attention of another kind, or a map whose weights are used without
    calling it.
    """
    costs: list[int | None] = []
    called: list[nn.Module] = []

    def add(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        called.append(module)
        costs.append(layer_multiply_adds(module, inputs, named, output))

    handle = register_module_forward_hook(add, with_kwargs=True)
    try:
        work()
    finally:
        handle.remove()
    ids = {id(module) for module in called}
    if any(id(part) not in ids for module in called for part in _maps(module)):
        return None
    found = [cost for cost in costs if cost is not None]
    return sum(found) if len(found) == len(costs) else None


def layer_multiply_adds(
    module: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Any
) -> int | None:
    """Return what one call of a layer costs beyond the layers that it calls; None where that is not known."""
    if isinstance(module, nn.Linear):
        return int(output.numel()) * module.in_features
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return int(inputs[0].numel()) * module.out_channels // module.groups * math.prod(module.kernel_size)
    if isinstance(module, nn.modules.conv._ConvNd):
        return int(output.numel()) * module.in_channels // module.groups * math.prod(module.kernel_size)
    if isinstance(module, nn.MultiheadAttention):
        query, key = (*inputs, *(named[name] for name in ("query", "key") if name in named), *inputs)[:2]
        return _attention(query, key, module.embed_dim, batch_first=module.batch_first)
    if _kind(module) in PLAIN_ATTENTION:
        batch, length = inputs[0].shape[0], inputs[0].shape[1]
        return int(2 * batch * length**2 * module.qkv.out_features // 3)
    if _kind(module) in POOLING:
        dim, out = module.c_proj.in_features, module.c_proj.out_features
        places = math.prod(inputs[0].shape[2:]) + 1
        return int(len(inputs[0]) * places * dim * (3 * dim + out + 2 * places))
    return None if hasattr(module, "num_heads") and _maps(module) else 0


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _maps(module: nn.Module) -> list[nn.Module]:
    """Return the maps that a layer must call for its cost to be the sum of theirs."""
    if isinstance(module, nn.MultiheadAttention) or _kind(module) in POOLING:
        return []
    return [child for child in module.children() if isinstance(child, Maps)]


def _attention(query: Tensor, key: Tensor, dim: int, *, batch_first: bool) -> int:
    """Return the cost of an attention with its four maps, of tokens (N, L, D) or (L, N, D)."""
    batch = query.shape[0 if batch_first else 1] if query.ndim == 3 else 1
    asked, seen = (tokens.numel() // tokens.shape[-1] // batch for tokens in (query, key))
    return int(batch * (2 * dim * dim * (asked + seen) + 2 * asked * seen * dim))
