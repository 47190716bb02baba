# SPDX-License-Identifier: Apache-2.0
"""Source models from golden tensors: tiny networks of known layout with given weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import BadInputError
from tta_bench.models.classifier import Classifier
from tta_bench.models.source import Network, SourceModel
from tta_bench.models.text import similarity

GROUPS = 4


class Prototypes(Network):
    """No encoder, and a head that gives the scaled cosines of features and texts.

    Args:
        text: (K, D).
        scale: 0-d factor of the cosines; 1 by default.
    """

    text: Tensor
    scale: Tensor

    def __init__(self, text: Tensor, scale: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("text", F.normalize(text, dim=-1))
        self.register_buffer("scale", torch.ones((), dtype=text.dtype) if scale is None else scale)

    def inner(self) -> nn.Module:
        """Return the network itself."""
        return self

    def head(self, features: Tensor) -> Tensor:
        """Return the scaled cosines (N, K) of features (N, D) and texts."""
        return similarity(features, self.text, self.scale, None)

    def head_weight(self) -> Tensor:
        """Return the unit texts (K, D)."""
        return self.text


class Recorded(Prototypes):
    """An encoder that gives recorded features for the images that they were recorded for.

    Args:
        images: (M, C, H, W).
        features: (M, D) of these images.
        text: (K, D).
        scale: 0-d factor of the cosines.
    """

    images: Tensor
    features: Tensor

    def __init__(self, images: Tensor, features: Tensor, text: Tensor, scale: Tensor) -> None:
        super().__init__(text, scale)
        self.register_buffer("images", images)
        self.register_buffer("features", features)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the features (N, D) of the recorded images that are equal to images (N, C, H, W)."""
        away = torch.cdist(x.flatten(1), self.images.flatten(1))
        return self.features[away.argmin(1)], None


class TinyConv(nn.Module):
    """Two convolutions with norms, a pooling after the first, a global mean and a linear classifier.

    Args:
        state: Tensors by name, which all widths are read from; with running statistics the norms are BatchNorm,
            else GroupNorm.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        first, channels, side, _ = state["conv1.weight"].shape
        second, (classes, _) = state["conv2.weight"].shape[0], state["fc.weight"].shape
        self.conv1 = nn.Conv2d(channels, first, side, padding=side // 2, bias=False)
        self.conv2 = nn.Conv2d(first, second, side, padding=side // 2, bias=False)
        batch = "bn1.running_mean" in state
        self.bn1 = nn.BatchNorm2d(first) if batch else nn.GroupNorm(GROUPS, first)
        self.bn2 = nn.BatchNorm2d(second) if batch else nn.GroupNorm(GROUPS, second)
        self.fc = nn.Linear(second, classes)
        self.load_state_dict(dict(state))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) of images (N, C, H, W)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        logits: Tensor = self.fc(F.relu(self.bn2(self.conv2(x))).mean((2, 3)))
        return logits


def zero_shot(text: Tensor) -> SourceModel:
    """Return a source model without an encoder whose logits are the cosines with texts (K, D)."""
    return SourceModel(
        Prototypes(text), name="golden", kind="clip", class_names=_names(len(text)),
        mean=(0.0,) * 3, std=(1.0,) * 3, preprocess=Preprocess((1, 1)), dtype=text.dtype,
    )  # fmt: skip


def classifier(
    name: str, state: Mapping[str, Tensor], image: tuple[int, int, int], kwargs: Mapping[str, Any]
) -> SourceModel:
    """Return the source model of one tiny classifier.

    Args:
        name: Of the model.
        state: Its tensors by name.
        image: Channels, height and width of its input.
        kwargs: Arguments of timm's vision transformer, for a model that has no convolution ``conv1``.
    """
    if not state:
        raise BadInputError(f"the golden weights hold no model {name!r}; the folder is incomplete")
    network = TinyConv(state) if "conv1.weight" in state else _transformer(state, kwargs)
    weight = state["fc.weight" if "fc.weight" in state else "head.weight"]
    return SourceModel(
        Classifier(network, len(weight)), name=name, kind="classifier", class_names=_names(len(weight)),
        mean=(0.0,) * image[0], std=(1.0,) * image[0], preprocess=Preprocess(image[1:]), dtype=weight.dtype,
    )  # fmt: skip


def _transformer(state: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> nn.Module:
    import timm.models.vision_transformer as vit

    model: Any = vit.VisionTransformer(**kwargs)
    model.load_state_dict(dict(state))
    for block in model.blocks:
        block.attn.fused_attn = False
    built: nn.Module = model
    return built


def _names(count: int) -> list[str]:
    return [f"class {index}" for index in range(count)]
