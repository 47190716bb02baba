# SPDX-License-Identifier: Apache-2.0
"""TENT on a CLIP-like model, reset for each batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from tta_bench.losses import entropy
from tta_bench.method import ALL_PRECISIONS, Card, SourceModel

from ._visual_norms import NEEDS, VisualNorms


@dataclass(frozen=True)
class TentClip(VisualNorms):
    """Minimise the entropy of a batch's predictions over the image tower's norm layers, then predict that batch.

    ``loss = mean_i H(softmax(z_i))``, several steps on the same batch; the prediction is a pass after the last one. The
    reset for each batch makes it another method than `tent`, which goes on from batch to batch.

    Source: Wang et al., ICLR 2021, arXiv:2006.10726, as CLIPArTT (arXiv:2405.00754) and WATT run it on CLIP.
    Differs: logits have the model's own scale, where that code has exactly 100.
    """

    card: ClassVar[Card] = Card(
        paper="arXiv:2006.10726",
        title="Tent: Fully Test-Time Adaptation by Entropy Minimization",
        authors="Wang, Dequan and Shelhamer, Evan and Liu, Shaoteng and Olshausen, Bruno and Darrell, Trevor",
        venue="International Conference on Learning Representations",
        year=2021,
        category="transductive",
        updates="parameters",
        needs=NEEDS,
        reset="batch",
        model="pocket-clip",
        vmappable=True,
        precision=ALL_PRECISIONS,
        parity="vlm/tent_clip",
        cost="11 forward + 10 backward",
        notes="Compared with under prompts without a full stop in the literature, which is part of the gain reported.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {"clipartt-2025": {"lr": 1e-3, "steps": 10}}

    def loss(self, source: SourceModel, features: Tensor) -> Tensor:
        """Return the mean entropy of the predictions."""
        return entropy(source.head(features)).mean()
