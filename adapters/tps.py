# SPDX-License-Identifier: Apache-2.0
"""TPS: shift the class features by a vector for each class, on the entropy of confident views of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.losses import most_confident
from tta_bench.method import ALL_PRECISIONS, Card, SourceModel, ViewPolicy
from tta_bench.optim import Tensors

from ._texts import text_side
from ._view_tuning import NEEDS, Seen, ViewTuning


@dataclass(frozen=True)
class Tps(ViewTuning):
    """Make the mean prediction over confident views certain by shifting each class feature.

    ``t'_c = unit(t_c + D_c)`` with ``D = 0`` before each image; ``loss = H(mean_{v in S} softmax(s x_v . t'))``.

    Source: Sui et al., WACV 2025, arXiv:2403.12952.
    Differs: the class features are those of a prompt set; the authors average them with features of descriptions
        that a language model wrote.

    Attributes:
        reselect: Whether the confident views are chosen again in every step.
    """

    reselect: bool = False

    card: ClassVar[Card] = Card(
        paper="arXiv:2403.12952",
        title="Just Shift It: Test-Time Prototype Shifting for Zero-Shot Generalization with Vision-Language Models",
        authors="Sui, Elaine and Wang, Xiaohan and Yeung-Levy, Serena",
        venue="IEEE/CVF Winter Conference on Applications of Computer Vision",
        year=2025,
        category="episodic",
        updates="parameters",
        inputs="features",
        needs=NEEDS,
        views=ViewPolicy(64, "crop"),
        reset="image",
        model="pocket-clip",
        vmappable=True,
        precision=ALL_PRECISIONS,
        idle=(("lr", 0.0),),
        parity="vlm/tps",
        cost="64 forward",
        notes="Much of the published gain is that of its class features: compare with zero-shot on the same prompts.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "imagenet": {"lr": 5e-3, "prompts": "ensemble"},
        "fine-grained": {"lr": 1e-3, "augmentation": "augmix"},
    }

    def tensors(self, source: SourceModel) -> Tensors:
        """Return a shift of 0 (K, D)."""
        return {"shift": torch.zeros_like(self._base(source))}

    def texts(self, source: SourceModel, params: Tensors) -> Tensor:
        """Return the shifted unit class features (K, D)."""
        return F.normalize(self._base(source) + params["shift"], dim=-1)

    def choose(self, logits: Tensor, before: Seen | None) -> Tensor:
        """Return the confident views (N, k), of the first step or of each."""
        return most_confident(logits, self.selection) if self.reselect else super().choose(logits, before)

    def _base(self, source: SourceModel) -> Tensor:
        return text_side(source).prototypes()
