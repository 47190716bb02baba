# SPDX-License-Identifier: Apache-2.0
"""Accuracy of the pocket models on the PocketScenes splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from open_clip import CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from scipy.stats import binomtest
from torch import Tensor
from torch.nn.functional import normalize

from tta_bench.pocket.nets import WEIGHTS, normalised
from tta_bench.pocket.scenes.painter import render
from tta_bench.pocket.scenes.spec import CLASS_NAMES, SPLIT_SIZES, TEMPLATES
from tta_bench.pocket.zoo import CLIPS, build, build_clip

EVALUATED = ("val", "test", "v2", "hard", "sketch", "rendition")


class Score(NamedTuple):
    """Count the right predictions on a split."""

    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """Return the fraction of right predictions."""
        return self.correct / self.images

    def interval(self) -> tuple[float, float]:
        """Return the 95 % Wilson interval of the accuracy."""
        bounds = binomtest(self.correct, self.images).proportion_ci(method="wilson")
        return float(bounds.low), float(bounds.high)


@torch.no_grad()
def prototypes(
    model: CustomTextCLIP, tokenizer: SimpleTokenizer, templates: Sequence[str] = TEMPLATES[:1]
) -> Tensor:
    """Return the unit mean of the unit text features of each class over templates, (K, D)."""
    prompts = [template.format(name) for name in CLASS_NAMES for template in templates]
    features = normalize(model.encode_text(tokenizer(prompts)), dim=1)
    return normalize(features.reshape(len(CLASS_NAMES), len(templates), -1).mean(1), dim=1)


@torch.no_grad()
def score(
    logits_of: Callable[[Tensor], Tensor], split: str, images: int | None = None, batch: int = 500
) -> Score:
    """Return the accuracy on the first images of a split.

    Args:
        logits_of: Maps normalised images (N, 3, 32, 32) to logits (N, K).
        split: Name of the split.
        images: How many; all of them by default.
        batch: Images per call.
    """
    count = SPLIT_SIZES[split] if images is None else images
    correct = 0
    for start in range(0, count, batch):
        pixels, labels = render(split, range(start, min(start + batch, count)))
        correct += int((logits_of(normalised(pixels.float() / 255)).argmax(1) == labels).sum())
    return Score(correct, count)


def classifier_of(
    name: str, templates: Sequence[str] = TEMPLATES[:1], folder: Path = WEIGHTS
) -> Callable[[Tensor], Tensor]:
    """Return a pocket model as a map from normalised images to logits; the CLIPs are used zero-shot.

    Args:
        name: Which pocket model of PocketScenes.
        templates: Prompts of a CLIP.
        folder: Where the weights are.
    """
    if name not in CLIPS:
        return build(name, folder=folder)  # type: ignore[arg-type]
    model, tokenizer = build_clip(name, folder=folder)
    head = prototypes(model, tokenizer, templates)
    return lambda x: normalize(model.encode_image(x), dim=1) @ head.T
