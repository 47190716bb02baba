# SPDX-License-Identifier: Apache-2.0
"""Shared by methods that make predictions more certain: the measure of uncertainty they minimise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.losses import entropy, opinion_entropy

from ._descent import Descending

LOSSES = ("entropy", "come")


@dataclass(frozen=True)
class Certain(Descending):
    """Minimise the uncertainty of predictions by gradient descent.

    Attributes:
        loss: Which uncertainty: ``entropy`` of the softmax, or ``come``, of the opinion (see `come-tent`).
        opinion_classes: Classes K that an opinion is about under ``come``; 0 for those of the stream.
    """

    loss: Literal["entropy", "come"] = "entropy"
    opinion_classes: int = 0

    def __post_init__(self) -> None:
        """Refuse an unknown loss and a negative number of classes."""
        super().__post_init__()
        if self.loss not in LOSSES:
            raise BadInputError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        if self.opinion_classes < 0:
            raise BadInputError(f"opinion_classes must be 0 or more, got {self.opinion_classes}")

    def uncertainty(self, logits: Tensor) -> Tensor:
        """Return the uncertainty (N,) of predictions with these logits (N, K), nats."""
        if self.loss == "entropy":
            return entropy(logits)
        return opinion_entropy(logits, self.opinion_classes or logits.shape[-1])
