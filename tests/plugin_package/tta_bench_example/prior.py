# SPDX-License-Identifier: Apache-2.0
"""Correct predictions for how often each class seems to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.method import Adapted, Card, Inputs, Method, SourceModel, State, Task


@dataclass(frozen=True)
class Prior(Method):
    """Divide the probabilities by a running estimate of how often the model predicts each class.

    ``prior <- (1 - momentum) * prior + momentum * mean_i softmax(z_i)``, then ``z - strength * log(prior)``. A
    model that favours some classes under a shift is pulled back towards equal shares.

    Source: logit adjustment, arXiv:2007.07314, applied to the predictions of the stream.
    Differs: the prior is that of the predictions and not of the training labels.

    Attributes:
        momentum: Share of the batch in the estimate, in [0, 1].
        strength: How much of the correction is applied; 0 leaves the source model's predictions.
    """

    momentum: float = 0.1
    strength: float = 1.0

    card: ClassVar[Card] = Card(
        paper="arXiv:2007.07314",
        title="Long-tail learning via logit adjustment",
        vmappable=True,
        idle=(("strength", 0.0),),
        notes="Hurts streams whose classes are not balanced.",
    )

    def __post_init__(self) -> None:
        """Refuse a share outside [0, 1]."""
        if not 0 <= self.momentum <= 1:
            raise BadInputError(
                f"momentum must lie in [0, 1], got {self.momentum}; it is the share of a batch"
            )

    def init(self, source: SourceModel, task: Task) -> State:
        """Return equal shares."""
        shares = torch.full((task.num_classes,), 1 / task.num_classes, dtype=source.dtype)
        return {"prior": shares.to(source.device)}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the estimate after the batch."""
        with torch.no_grad():
            seen = self._logits(source, inputs).softmax(-1).mean(0)
        return Adapted({"prior": (1 - self.momentum) * state["prior"] + self.momentum * seen})

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return the corrected logits (N, K)."""
        return self._logits(source, inputs) - self.strength * state["prior"].log()

    def _logits(self, source: SourceModel, inputs: Inputs) -> Tensor:
        assert inputs.images is not None
        return source.logits(inputs.images)
