# SPDX-License-Identifier: Apache-2.0
"""O-TPT: tune the prompt as TPT does, and make its class features orthogonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from tta_bench.losses import correlation_norm
from tta_bench.method import ALL_PRECISIONS, Card, ViewPolicy

from ._view_tuning import NEEDS, CalibratedTuning, Seen


@dataclass(frozen=True)
class OTpt(CalibratedTuning):
    """Tune the prompt on the marginal entropy of confident views while its class features become orthogonal.

    ``loss = H(mean_{v in S} p_v) + weight * mean_c | ||(t t^T)_c|| - 1 |``.

    Source: Sharifdeen et al., CVPR 2025, arXiv:2503.12096.
    Differs: the value and gradient of the reference's Householder reflections without their K x K x K tensors;
        image features are computed once, without a graph; at least one view is kept.

    Attributes:
        weight: Of the orthogonality term.
        two_step: Whether the term has an update of its own after that on the entropy.
    """

    weight: float = 18.0

    card: ClassVar[Card] = Card(
        paper="arXiv:2503.12096",
        title="O-TPT: Orthogonality Constraints for Calibrating Test-time Prompt Tuning in Vision-Language Models",
        authors="Sharifdeen, Ashshak and Munir, Muhammad Akhtar and Baliah, Sanoojan and Khan, Salman and "
        "Khan, Muhammad Haris",
        venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
        year=2025,
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
        parity="vlm/otpt",
        cost="64 forward; text tower, over all classes: 2 forward + 1 backward",
        reference_licence="CC-BY-NC-4.0",
        notes="A method for calibration: compare its ECE, not its accuracy, with TPT's.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "imagenet": {"weight": 2.0, "augmentation": "augmix"},
        "fine-grained": {"weight": 18.0, "augmentation": "augmix"},
    }

    def spread(self, seen: Seen) -> Tensor:
        """Return the weighted distance from orthogonality."""
        return self.weight * correlation_norm(seen.text)
