# SPDX-License-Identifier: Apache-2.0
"""VTE: zero-shot classification of the mean of an image's confident views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State, ViewPolicy

from ._matching import NEEDS, Matching, confident, text_scale


@dataclass(frozen=True)
class Vte(Matching):
    """Average the features of the views whose predictions have the least entropy.

    ``z = s mean_{v in S} x_v . T``, S the confident views.

    Source: Doebler et al., ECCV 2024 workshops, arXiv:2405.14977, section 3 (vision-text-space ensemble).
    Differs: nothing; the mean is not normalised again, as in the reference.
    """

    views: int = 64

    card: ClassVar[Card] = Card(
        paper="arXiv:2405.14977",
        title="A Lost Opportunity for Vision-Language Models: A Comparative Study of Online Test-Time Adaptation for "
        "Vision-Language Models",
        authors='D{\\"o}bler, Mario and Marsden, Robert A. and Raichle, Tobias and Yang, Bin',
        venue="European Conference on Computer Vision Workshops",
        year=2024,
        category="episodic",
        updates="inference",
        inputs="features",
        needs=NEEDS,
        views=ViewPolicy(64),
        predicts="before",
        reset="image",
        model="pocket-clip",
        independent=True,
        vmappable=True,
        precision=ALL_PRECISIONS,
        idle=(("views", 1),),
        parity="vlm/vte",
        cost="64 forward with 64 views",
        notes="The baseline for every method that uses views: no state, no gradients, no hyper-parameter to tune.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "doebler-2024": {"prompts": "ensemble"},
        "all": {"selection": 1.0},
    }

    def observe(self, source: SourceModel, state: State, inputs: Inputs) -> tuple[State, dict[str, Tensor]]:
        """Return the state unchanged and the logits (N, K)."""
        rows, scale = self.rows(inputs), text_scale(source)
        chosen = confident(rows, scale * rows @ state["text"].T, self.selection)
        return state, {"logits": scale * chosen.rows.mean(1) @ state["text"].T}

    def score(self, source: SourceModel, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the logits (N, K)."""
        return evidence["logits"]
