# SPDX-License-Identifier: Apache-2.0
"""NEO: features of the test images are centred before the classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from tta_bench.errors import BadInputError
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, Method, SourceModel, State, Task

VARIANTS = ("average", "continual")


@dataclass(frozen=True)
class Neo(Method):
    """Subtract the mean feature of the test images seen so far from each feature.

    ``z = head(f - c)``; the batch counts in its own centre. ``average``: c is the mean over all images so far.
    ``continual``: ``c = (1 - alpha) c + alpha mean(f)``, from zero on, so that the first batches are hardly centred.

    Source: Murphy et al., ICLR 2026, arXiv:2510.05635.
    Differs: any model that takes features apart from its head, not transformers alone; a reset forgets the centre.

    Attributes:
        variant: ``average`` for a single shift, ``continual`` for a stream that is never reset.
        alpha: Share of the batch in the centre under ``continual``.
    """

    variant: Literal["average", "continual"] = "average"
    alpha: float = 0.1

    card: ClassVar[Card] = Card(
        paper="arXiv:2510.05635",
        title="NEO: No-Optimization Test-Time Adaptation through Latent Re-Centering",
        authors="Murphy, Alexander and Danilowski, Michal and Chatterjee, Soumyajit and Ghosh, Abhirup",
        venue="International Conference on Learning Representations",
        year=2026,
        category="online",
        updates="state",
        predicts="during",
        vmappable=True,
        precision=ALL_PRECISIONS,
        idle=(("variant", "continual"), ("alpha", 0.0)),
        parity="online/neo",
        cost="1 forward",
        reference_licence="none stated",
        notes="The first image of batches of one is its own centre: its logits are the head's bias, whatever it shows.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "imagenet-c": {"variant": "average"},
        "cifar10-c": {"variant": "average"},
        "continual": {"variant": "continual", "alpha": 0.1},
    }

    def __post_init__(self) -> None:
        """Refuse an unknown variant and a share outside [0, 1]."""
        if self.variant not in VARIANTS:
            raise BadInputError(f"variant must be one of {', '.join(VARIANTS)}, got {self.variant!r}")
        if not 0 <= self.alpha <= 1:
            raise BadInputError(f"alpha must lie in [0, 1], got {self.alpha}; it is the share of the batch")

    def init(self, source: SourceModel, task: Task) -> State:
        """Return a centre (D,) of zeros and no image seen."""
        return {
            "centre": torch.zeros(source.dim, dtype=source.dtype, device=source.device),
            "count": torch.zeros((), dtype=torch.int64, device=source.device),
        }

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the centre with the batch in it, and the logits of the centred features."""
        assert inputs.images is not None
        with torch.no_grad():
            features = source.encode(inputs.images)
            count = state["count"] + len(features)
            share = len(features) / count.to(features.dtype) if self.variant == "average" else self.alpha
            centre = (1 - share) * state["centre"] + share * features.mean(0)
            return Adapted({"centre": centre, "count": count}, source.head(features - centre))
