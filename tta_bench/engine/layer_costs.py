# SPDX-License-Identifier: Apache-2.0
"""What a network costs in multiply-adds by formula: layer by layer, from its sizes and the shape of what enters it.

Single products outside layers, as of a projection that is a bare tensor, are left out; they are a few thousandths.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook


def layers_multiply_adds(work: Callable[[], object]) -> int:
    """Return the multiply-adds of all layers that are called in some work."""
    total = 0

    def add(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        total += layer_multiply_adds(module, inputs, output)

    handle = register_module_forward_hook(add)
    try:
        work()
    finally:
        handle.remove()
    return total


def layer_multiply_adds(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> int:
    """Return what one call of a layer costs beyond the layers that it calls; 0 where it has no product of its own."""
    if isinstance(module, nn.Linear):
        return int(output.numel()) * module.in_features
    if isinstance(module, nn.modules.conv._ConvNd):
        return int(output.numel()) * module.in_channels // module.groups * math.prod(module.kernel_size)
    if isinstance(module, nn.MultiheadAttention):
        query, key = inputs[0], inputs[1] if len(inputs) > 1 else inputs[0]
        return _whole_attention(
            query, key, module.embed_dim, module.embed_dim, batch_first=module.batch_first
        )
    if not hasattr(module, "num_heads"):
        return 0
    if isinstance(qkv := getattr(module, "qkv", None), nn.Linear):  # timm's: a layer in, a layer out
        batch, length = inputs[0].shape[0], inputs[0].shape[1]
        return int(2 * batch * length**2 * qkv.out_features // 3)
    if isinstance(
        out := getattr(module, "c_proj", None), nn.Linear
    ):  # CLIP's pooling over a map and its mean
        batch, dim, places = len(inputs[0]), out.in_features, math.prod(inputs[0].shape[2:]) + 1
        return int(batch * places * dim * (3 * dim + out.out_features + 2 * places))
    return 0


def _whole_attention(query: Tensor, key: Tensor, dim: int, out: int, *, batch_first: bool) -> int:
    """Return the cost of an attention with its four maps, of tokens (N, L, D) or (L, N, D)."""
    batch = query.shape[0 if batch_first else 1] if query.ndim == 3 else 1
    asked, seen = (tokens.numel() // tokens.shape[-1] // batch for tokens in (query, key))
    return int(batch * (dim * dim * (asked + 2 * seen) + asked * dim * out + 2 * asked * seen * dim))
