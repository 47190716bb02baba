# SPDX-License-Identifier: Apache-2.0
"""Tensors of a text tower that a method may adapt, and the tower run with others in their place."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call

from tta_bench.models.layers import NORMS, kind_of

IMAGES = "visual."
"""Start of the names of the other tower, which libraries keep in the same module."""
OWNER = "model"


class Tower(nn.Module):
    """A model called for its texts.

    Args:
        model: Has ``encode_text``; it is used, not copied.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Return features (P, D) of token ids (P, L)."""
        features: Tensor = self.model.encode_text(tokens)  # type: ignore[operator]
        return features


def text_norms(model: nn.Module) -> dict[str, Tensor]:
    """Return the affine tensors of a text tower's norm layers by name, detached."""
    found = {}
    for name, module in model.named_modules():
        if kind_of(module) in NORMS and not name.startswith(IMAGES):
            found.update({f"{name}.{leaf}": p.detach() for leaf, p in module.named_parameters(recurse=False)})
    return found


def encoded_with(model: nn.Module, tokens: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the features (P, D) of token ids (P, L) with tensors that stand in for the model's own in this call."""
    named = {f"{OWNER}.{name}": tensor for name, tensor in tensors.items()}
    result: Tensor = functional_call(Tower(model), named, (tokens,), tie_weights=False)
    return result
