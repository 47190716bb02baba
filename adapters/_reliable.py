# SPDX-License-Identifier: Apache-2.0
"""Shared by ETA, EATA and RDumb: entropy minimisation on samples that are reliable and not redundant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.method import Adapted, Inputs, SourceModel, State
from tta_bench.norms import batch
from tta_bench.optim import Tensors, gradient

from ._certainty import Certain

KEEP = 0.9
PRESETS: dict[str, dict[str, Any]] = {
    "cifar10-c": {"optimizer": "adam", "lr": 1e-3, "redundancy": 0.4},
    "cifar100-c": {"optimizer": "adam", "lr": 1e-3, "redundancy": 0.1},
    "imagenet-c": {"optimizer": "sgd", "lr": 2.5e-4, "momentum": 0.9, "redundancy": 0.05},
}


@dataclass(frozen=True)
class Reliable(Certain):
    """Minimise the weighted entropy of the samples that are reliable and not redundant.

    Attributes:
        margin: Entropy below which a sample is reliable, as a share of ln K.
        redundancy: Cosine with the mean prediction above which a sample is redundant.
    """

    margin: float = 0.4
    redundancy: float = 0.4

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if not self.margin >= 0 or not self.redundancy >= 0:
            raise BadInputError(
                f"margin and redundancy must be 0 or more, got {self.margin} and {self.redundancy}"
            )

    def initial_state(self, source: SourceModel) -> State:
        """Return the first state: no mean prediction yet."""
        return {
            **super().initial_state(source),
            "mean": torch.zeros(source.num_classes, dtype=source.dtype, device=source.device),
            "begun": torch.zeros((), dtype=torch.bool, device=source.device),
        }

    def penalty(self, source: SourceModel, state: State, params: Tensors) -> Tensor | float:
        """Return what is added to the loss."""
        return 0.0

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after one update, or the same where no sample is kept, and the logits before it."""
        images, margin = inputs.images, self.margin * math.log(source.num_classes)
        assert images is not None

        def loss(params: Tensors) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            logits = source.logits(images, params, norm=batch())
            each = self.uncertainty(logits)
            kept = self._kept(state, logits.detach(), each.detach(), margin)
            if not kept.any():
                return each.new_zeros(()), (logits, kept)
            chosen = each[kept]
            value = ((margin - chosen.detach()).exp() * chosen).mean()
            return value + self.penalty(source, state, params), (logits, kept)

        grads, _, (logits, kept) = gradient(loss, state["params"])
        if not kept.any():
            return Adapted(state, logits)
        seen = logits[kept].softmax(-1).mean(0)
        mean = KEEP * state["mean"] + (1 - KEEP) * seen if state["begun"] else seen
        return Adapted(
            {**self.moved(state, grads), "mean": mean, "begun": torch.ones_like(state["begun"])}, logits
        )

    def _kept(self, state: State, logits: Tensor, each: Tensor, margin: float) -> Tensor:
        """Return which samples (N,) are reliable and, once there is a mean prediction, unlike it."""
        kept = each < margin
        if not state["begun"]:
            return kept
        likeness = F.cosine_similarity(state["mean"], logits.softmax(-1), dim=-1)
        return kept & (likeness.abs() < self.redundancy)
