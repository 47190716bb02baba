# SPDX-License-Identifier: Apache-2.0
"""C-TPT: tune the prompt as TPT does, and reward class features that lie far from their mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from tta_bench.losses import dispersion
from tta_bench.method import ALL_PRECISIONS, Card, ViewPolicy

from ._view_tuning import NEEDS, CalibratedTuning, Seen


@dataclass(frozen=True)
class CTpt(CalibratedTuning):
    """Tune the prompt on the marginal entropy of confident views while its class features stay dispersed.

    ``loss = H(mean_{v in S} p_v) - weight * mean_c ||t_c - mean_c' t_c'||``.

    Source: Yoon et al., ICLR 2024, arXiv:2403.14119.
    Differs: image features are computed once, without a graph; at least one view is kept.

    Attributes:
        weight: Of the dispersion.
        two_step: Whether the dispersion has an update of its own after that on the entropy.
    """

    weight: float = 50.0

    card: ClassVar[Card] = Card(
        paper="arXiv:2403.14119",
        title="C-TPT: Calibrated Test-Time Prompt Tuning for Vision-Language Models via Text Feature Dispersion",
        authors="Yoon, Hee Suk and Yoon, Eunseop and Tee, Joshua Tian Jin and Hasegawa-Johnson, Mark and "
        "Li, Yingzhen and Yoo, Chang D.",
        venue="International Conference on Learning Representations",
        year=2024,
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
        parity="vlm/ctpt",
        cost="64 forward; text tower, over all classes: 2 forward + 1 backward",
        notes="A method for calibration: compare its ECE, not its accuracy, with TPT's. Published scripts turn "
        "AugMix on for ImageNet too, which those of TPT do not.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "imagenet": {"weight": 20.0, "augmentation": "augmix"},
        "fine-grained": {"weight": 50.0, "augmentation": "augmix"},
    }

    def spread(self, seen: Seen) -> Tensor:
        """Return the negative weighted dispersion of the class features."""
        return -self.weight * dispersion(seen.text)
