# SPDX-License-Identifier: Apache-2.0
"""A-TPT: tune the prompt as TPT does, and widen the angle between each class feature and its nearest other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.losses import nearest_angle
from tta_bench.method import ALL_PRECISIONS, Card, ViewPolicy

from ._view_tuning import NEEDS, CalibratedTuning, Seen


@dataclass(frozen=True)
class ATpt(CalibratedTuning):
    """Tune the prompt on the marginal entropy of confident views while the smallest angles between classes widen.

    ``loss = H(mean_{v in S} p_v) - weight * mean_c arccos(max_{c' != c} t_c . t_c')``.

    Source: Shihab Aaqil Ahamed et al., ICLR 2026, arXiv:2510.26441.
    Differs: image features are computed once, without a graph; at least one view is kept; the fine-grained script
        of the authors has the opposite sign, which a negative weight reproduces.

    Attributes:
        weight: Of the angle; below 0 it shrinks.
        two_step: Whether the angle has an update of its own after that on the entropy.
        clamp: Cosines beyond it count as it and give no gradient.
    """

    weight: float = 80.0
    clamp: float = 0.99999

    card: ClassVar[Card] = Card(
        paper="arXiv:2510.26441",
        title="A-TPT: Angular Diversity Calibration Properties for Test-Time Prompt Tuning of Vision-Language Models",
        authors="Ahamed, Shihab Aaqil and others",
        venue="International Conference on Learning Representations",
        year=2026,
        category="episodic",
        updates="parameters",
        prompts="single",
        inputs="features",
        needs=NEEDS,
        views=ViewPolicy(64, "crop"),
        reset="image",
        model="pocket-clip",
        vmappable=True,
        chunk=8,
        precision=ALL_PRECISIONS,
        parity="vlm/atpt",
        cost="64 forward; text tower, over all classes: 2 forward + 1 backward",
        reference_licence="MIT",
        notes="Only the nearest class of each class has a gradient, and none where the two are nearly one.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "imagenet": {"weight": 10.0, "augmentation": "augmix"},
        "fine-grained": {"weight": 80.0, "augmentation": "augmix"},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if not 0 < self.clamp < 1:
            raise BadInputError(f"clamp must lie between 0 and 1, got {self.clamp}")

    def spread(self, seen: Seen) -> Tensor:
        """Return the negative weighted mean angle between nearest classes."""
        return -self.weight * nearest_angle(seen.text, self.clamp)
