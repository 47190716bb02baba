# SPDX-License-Identifier: Apache-2.0
"""A network of one's own for imperative methods, and the context in which products round."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from tta_bench.models.layers import keep_type, remove_rules


class Imperative(nn.Module):
    """A network with its normalisation, free to be changed."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor, lower: torch.dtype | None) -> None:
        super().__init__()
        remove_rules(network)
        if lower is not None:
            keep_type(network, mean.dtype)
        self.network, self.lower = network, lower
        self.register_buffer("mean", mean.clone().view(-1, 1, 1), persistent=False)
        self.register_buffer("std", std.clone().view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) of images (N, C, H, W) in [0, 1]."""
        with nullcontext() if self.lower is None else autocast(x.device, self.lower):
            logits: Tensor = self.network((x - self.mean) / self.std)[0]
        return logits.to(x.dtype)


def autocast(device: torch.device, lower: torch.dtype) -> torch.autocast:
    """Return a context in which products round to a lower floating type.

    Its cache of rounded weights is off: they may be those of another image under ``vmap``.
    """
    return torch.autocast(device.type, lower, cache_enabled=False)
