# SPDX-License-Identifier: Apache-2.0
"""CLIP-like models of open_clip taken apart: the visual tower, fixed class prototypes, the text side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import IncompatibleError
from tta_bench.models.layers import freeze
from tta_bench.models.loading import ModelRequest
from tta_bench.models.patches import patch_features
from tta_bench.models.source import Network, SourceModel
from tta_bench.models.text import TextSide, Tokenizer, similarity
from tta_bench.models.weights import filter_of


class ClipNetwork(Network):
    """A visual tower that compares its features with fixed class prototypes.

    Args:
        visual: The visual tower alone, projection included.
        prototypes: (K, D), unit rows.
        scale: 0-d factor of the cosines.
        bias: 0-d added to the logits, or None.
    """

    prototypes: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, visual: nn.Module, prototypes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.visual = visual
        for key, value in (("prototypes", prototypes), ("scale", scale), ("bias", bias)):
            self.register_buffer(key, value)
        if hasattr(visual, "output_tokens"):
            visual.output_tokens = True  # type: ignore[assignment]  # a plain flag of open_clip's transformer

    def inner(self) -> nn.Module:
        """Return the visual tower."""
        return self.visual

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the image features (N, D) before unit length, and tokens (N, L, D') of a transformer."""
        visual: Any = self.visual
        trunk = getattr(visual, "trunk", None)
        if trunk is not None and hasattr(trunk, "forward_features") and hasattr(trunk, "forward_head"):
            maps = trunk.forward_features(x)
            features: Tensor = visual.head(trunk.forward_head(maps))
            return features, maps if maps.ndim == 3 else None
        result = visual(x)
        return result if isinstance(result, tuple) else (result, None)

    def patches(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return raw features (N, D) and those of the patches (N, P, D), where the tower has such."""
        return patch_features(self.visual, x)

    def head(self, features: Tensor) -> Tensor:
        """Return the logits (N, K): scaled cosines with the prototypes."""
        return similarity(features, self.prototypes, self.scale, self.bias)

    def head_weight(self) -> Tensor:
        """Return the class prototypes (K, D)."""
        return self.prototypes


def clip_source(request: ModelRequest, model: Any, tokenizer: Tokenizer) -> SourceModel:
    """Return the source model of an open_clip model, bound to the request's classes and templates.

    The whole model is cast before texts are encoded, so that prototypes in float64 are exact to float64.

    Raises:
        IncompatibleError: If its preprocessing is one that we do not make.
    """
    freeze(model.to(device=request.device, dtype=request.dtype))
    facts = model.visual.preprocess_cfg
    scale = model.logit_scale.detach().exp().reshape(())
    bias = getattr(model, "logit_bias", None)
    bias = None if bias is None else bias.detach().reshape(())
    text = TextSide(model, tokenizer, request.class_names, request.templates, scale=scale, bias=bias)
    return SourceModel(
        ClipNetwork(model.visual, text.prototypes(), scale, bias),
        name=request.name,
        kind="clip",
        class_names=request.class_names,
        mean=_per_channel(facts["mean"]),
        std=_per_channel(facts["std"]),
        preprocess=preprocess_of(facts, request.name),
        text=text,
        dtype=request.dtype,
        device=request.device,
        pretrained=request.pretrained,
    )


def preprocess_of(facts: dict[str, Any], name: str) -> Preprocess:
    """Return the resize and crop that open_clip's own evaluation transform would make of these facts.

    Raises:
        IncompatibleError: If images would be padded with a border, or kept in aspect for an oblong input.
    """
    size = facts["size"]
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))
    mode = facts["resize_mode"] or "shortest"
    if mode == "longest" or (mode == "shortest" and height != width):
        raise IncompatibleError(
            f"the resize of {name!r} must be 'shortest' with a square input, or 'squash', got {mode!r} with "
            f"{height}x{width}; choose another model"
        )
    resize = height if mode == "shortest" else None
    return Preprocess((height, width), resize, filter_of(facts["interpolation"]))


def _per_channel(value: float | Sequence[float]) -> tuple[float, ...]:
    values = torch.as_tensor(value, dtype=torch.float64).reshape(-1)
    return tuple(values.expand(3).tolist())
