# SPDX-License-Identifier: Apache-2.0
"""RDumb: ETA that starts afresh at regular intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from tta_bench.errors import BadInputError
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State

from ._reliable import PRESETS, Reliable


@dataclass(frozen=True)
class RDumb(Reliable):
    """Adapt as ETA does and return to the source model every few batches.

    ``loss = mean_{i in S} exp(E0 - H_i) * H_i`` with ETA's S and E0. After each ``every`` batches, counting those
    in which no sample was kept, ``theta <- theta_source``, and the optimiser and the mean prediction are as at
    the start.

    Source: Press et al., NeurIPS 2023, arXiv:2306.05401.
    Differs: a reset by the runner also zeroes the count.

    Attributes:
        margin: Entropy below which a sample is reliable, as a share of ln K.
        redundancy: Cosine with the mean prediction above which a sample is redundant.
        every: Batches between two fresh starts.
    """

    every: int = 1000

    card: ClassVar[Card] = Card(
        paper="arXiv:2306.05401",
        title="RDumb: A simple approach that questions our progress in continual test-time adaptation",
        authors="Press, Ori and Schneider, Steffen and Kümmerer, Matthias and Bethge, Matthias",
        venue="Advances in Neural Information Processing Systems",
        year=2023,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients"}),
        predicts="before",
        precision=ALL_PRECISIONS,
        parity="online/rdumb",
        cost="1 forward + 1 backward",
        notes="A sanity check for long streams; equal to ETA on streams shorter than `every` batches.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.every < 1:
            raise BadInputError(f"every must be 1 batch or more, got {self.every}")

    def initial_state(self, source: SourceModel) -> State:
        """Return the first state: no batch counted."""
        return {
            **super().initial_state(source),
            "batches": torch.zeros((), dtype=torch.int64, device=source.device),
        }

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after ETA's step, or the first state where the interval is over."""
        adapted = super().adapt(source, state, inputs)
        batches = state["batches"] + 1
        if batches >= self.every:
            return adapted._replace(state=self.initial_state(source))
        return adapted._replace(state={**adapted.state, "batches": batches})
