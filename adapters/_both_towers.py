# SPDX-License-Identifier: Apache-2.0
"""Shared by methods that tune the norm layers of both towers: their tensors, and the class terms of BAT-CLIP."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.method import SourceModel
from tta_bench.optim import Tensors

from ._texts import text_side

TEXT = "text."


def norms_of_both(source: SourceModel) -> Tensors:
    """Return the affine tensors of the norm layers of both towers; those of the texts start with ``text.``."""
    texts = {TEXT + name: p for name, p in text_side(source).normalisation().items()}
    return {**source.normalisation(), **texts}


def parted(params: Tensors) -> tuple[Tensors, Tensors]:
    """Return the tensors of the image tower and those of the text tower, by their names in them."""
    texts = {name.removeprefix(TEXT): p for name, p in params.items() if name.startswith(TEXT)}
    return {name: p for name, p in params.items() if not name.startswith(TEXT)}, texts


def class_terms(features: Tensor, classes: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return how near the means of the predicted classes are to their texts, and how far from each other.

    Args:
        features: (N, D) raw.
        classes: (K, D) unit class features.
        logits: (N, K), which predict the classes.

    Source: BAT-CLIP, arXiv:2412.02837, eqs. 3 to 5.
    """
    rows = torch.arange(len(classes), device=logits.device)
    belongs = (logits.argmax(-1)[:, None] == rows).to(features.dtype)
    count = belongs.sum(0)
    there = (count > 0).to(features.dtype)
    means = belongs.T @ features / count.clamp(min=1)[:, None]
    near = ((means * classes).sum(-1) * there).sum() / there.sum()
    safe = torch.where(there[:, None] > 0, means, torch.ones_like(means))
    unit = F.normalize(safe, dim=-1) * there[:, None]
    cosines = unit @ unit.T
    pairs = torch.outer(there, there) * (1 - torch.eye(len(there), dtype=there.dtype, device=there.device))
    return near, (pairs * (1 - cosines)).sum()
