# SPDX-License-Identifier: Apache-2.0
"""Tiny source models: a classifier for each kind of normalisation, and a CLIP-like model with a text side."""

from __future__ import annotations

import copy
import math
import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import BadInputError
from tta_bench.method import Method
from tta_bench.models.classifier import Classifier, last_linear
from tta_bench.models.source import Network, SourceModel
from tta_bench.models.text import TextSide, Tokenizer, similarity
from tta_bench.testing.nets import PATCH, TinyConv, TinyTextTower, TinyViT, build, calibrate

Norm = Literal["batch", "group", "layer"]
NORMS: tuple[Norm, ...] = ("batch", "group", "layer")
NAMES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibex", "jay")
TEMPLATES = ("a photo of a {}.", "a drawing of the {}.")
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
VOCABULARY, CONTEXT, WIDTH = 256, 16, 16
SCALE = 100.0


def class_names(count: int) -> tuple[str, ...]:
    """Return that many class names."""
    return (*NAMES[:count], *(f"class {index}" for index in range(len(NAMES), count)))


def tiny_source(
    norm: Norm = "batch",
    *,
    classes: int = 5,
    size: tuple[int, int, int] = (3, 16, 16),
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> SourceModel:
    """Return a small classifier with random weights: convolutions, or a transformer for layer norms.

    Args:
        norm: Kind of its normalisation layers.
        classes: K.
        size: Channels, height and width of its input; height and width are multiples of 4.
        dtype: Of its tensors; a seed stands for the same weights in every type.
        device: Where it lives.
        seed: Of its weights.
    """
    if norm not in NORMS:
        raise BadInputError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
    side = _checked(size)
    net = copy.deepcopy(_classifier(norm, classes, size, seed))
    return SourceModel(
        Classifier(net, classes),
        name=f"tiny-{norm}",
        kind="classifier",
        class_names=class_names(classes),
        mean=_channels(MEAN, size[0]),
        std=_channels(STD, size[0]),
        preprocess=Preprocess(side),
        dtype=dtype,
        device=device,
        pretrained=False,
    )


def tiny_clip(
    *,
    classes: int = 5,
    size: tuple[int, int, int] = (3, 16, 16),
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    seed: int = 0,
    tokenizer: Tokenizer | None = None,
) -> SourceModel:
    """Return a small CLIP-like model with random weights: a transformer for images and one for texts.

    Args:
        classes: K.
        size: Channels, height and width of its input; height and width are multiples of 4.
        dtype: Of its tensors; a seed stands for the same weights in every type.
        device: Where it lives.
        seed: Of its weights.
        tokenizer: From sentences to token ids; default `tokenize`.
    """
    side = _checked(size)
    visual, tower = copy.deepcopy(_towers(size, seed))
    tower = tower.requires_grad_(False).eval().to(device, dtype)
    names = class_names(classes)
    scale = torch.tensor(SCALE, dtype=dtype, device=device)
    text = TextSide(tower, tokenizer or tokenize, names, TEMPLATES, scale=scale)
    return SourceModel(
        TinyClipNetwork(visual, text.prototypes(), text.scale),
        name="tiny-clip",
        kind="clip",
        class_names=names,
        mean=_channels(MEAN, size[0]),
        std=_channels(STD, size[0]),
        preprocess=Preprocess(side),
        text=text,
        dtype=dtype,
        device=device,
        pretrained=False,
    )


def sources_for(
    method: Method, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu", seed: int = 0
) -> list[SourceModel]:
    """Return the tiny models that a method must work on, by what its card needs.

    Args:
        method: The method.
        dtype: Of the models' tensors.
        device: Where they live.
        seed: Of their weights.

    Returns:
        The CLIP-like model if it needs texts, a reward model or features; only the one with BatchNorm, or the
        transformer, if it needs that; otherwise a classifier for each kind of normalisation.
    """
    needs = method.card.needs
    if needs & {"text", "reward", "features"}:
        source = tiny_clip(dtype=dtype, device=device, seed=seed)
        if "reward" in needs:
            source.reward = tiny_clip(dtype=dtype, device=device, seed=seed + 10)
        return [source]
    chosen: tuple[Norm, ...] = NORMS
    if "batchnorm" in needs:
        chosen = ("batch",)
    elif needs & {"patch_features", "class_token"}:
        chosen = ("layer",)
    return [tiny_source(norm, dtype=dtype, device=device, seed=seed) for norm in chosen]


class TinyClipNetwork(Network):
    """A vision transformer whose features are compared with class prototypes."""

    prototypes: Tensor
    scale: Tensor

    def __init__(self, visual: nn.Module, prototypes: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.visual = visual
        self.register_buffer("prototypes", prototypes, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def inner(self) -> nn.Module:
        """Return the visual tower."""
        return self.visual

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features (N, D) and tokens (N, L, D) of normalised images."""
        tokens: Tensor = self.visual.forward_features(x)  # type: ignore[operator]
        return tokens[:, 0], tokens

    def patches(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return features (N, D) and those of the patches (N, P, D)."""
        features, tokens = self.encode(x)
        return None if tokens is None else (features, tokens[:, 1:])

    def head(self, features: Tensor) -> Tensor:
        """Return the scaled cosines (N, K) of features (N, D) and prototypes."""
        return similarity(features, self.prototypes, self.scale, None)

    def head_weight(self) -> Tensor:
        """Return the prototypes (K, D)."""
        return self.prototypes


def tokenize(prompts: Sequence[str]) -> Tensor:
    """Return token ids (P, 16): one for each word or mark, between a start and an end token, padded with 0."""
    start, end = VOCABULARY - 2, VOCABULARY - 1
    rows = []
    for prompt in prompts:
        words = re.findall(r"\w+|[^\w\s]", prompt.lower())[: CONTEXT - 2]
        ids = [start, *(1 + zlib.crc32(word.encode()) % (VOCABULARY - 3) for word in words), end]
        rows.append(ids + [0] * (CONTEXT - len(ids)))
    return torch.tensor(rows, dtype=torch.int64)


@lru_cache(maxsize=16)
def _classifier(norm: Norm, classes: int, size: tuple[int, int, int], seed: int) -> nn.Module:
    """Return the network of a tiny classifier; callers copy it."""
    if norm == "layer":
        net = build(lambda: TinyViT(classes, size[0], size[1:]), seed)
    else:
        maker = nn.BatchNorm2d if norm == "batch" else _group_norm
        net = build(lambda: TinyConv(classes, size[0], maker), seed)
    generator = torch.Generator().manual_seed(seed)
    calibrate(net, last_linear(net), torch.randn(32, *size, generator=generator, dtype=torch.float64))
    return net


@lru_cache(maxsize=16)
def _towers(size: tuple[int, int, int], seed: int) -> tuple[nn.Module, nn.Module]:
    """Return the visual and the text tower of a tiny CLIP-like model; callers copy them."""
    visual = build(lambda: TinyViT(None, size[0], size[1:], WIDTH), seed)
    return visual, build(lambda: TinyTextTower(VOCABULARY, CONTEXT, WIDTH, WIDTH), seed + 1)


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels)


def _channels(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    return (values * math.ceil(count / len(values)))[:count]


def _checked(size: tuple[int, int, int]) -> tuple[int, int]:
    if size[1] % PATCH or size[2] % PATCH or min(size) < 1:
        raise BadInputError(f"size must be channels, height and width, the latter multiples of 4, got {size}")
    return size[1], size[2]
