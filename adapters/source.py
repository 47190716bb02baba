# SPDX-License-Identifier: Apache-2.0
"""The source model as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, Method, SourceModel, State


@dataclass(frozen=True)
class Source(Method):
    """Predict with the source model and adapt nothing.

    BatchNorm layers normalise by their stored statistics, so the prediction of an image depends neither on
    its batch nor on what came before. This is the row that every other row is compared with.

    Source: the unadapted baseline of the test-time adaptation literature.
    Differs: nothing.
    """

    card: ClassVar[Card] = Card(
        paper="baseline",
        title="Source model without adaptation",
        category="episodic",
        updates="inference",
        predicts="before",
        reset="image",
        independent=True,
        vmappable=True,
        precision=ALL_PRECISIONS,
        idle=(),
        parity="online/source",
        cost="1 forward",
        notes="The baseline: no tensor changes.",
    )

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state unchanged."""
        return Adapted(state)
