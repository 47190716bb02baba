# SPDX-License-Identifier: Apache-2.0
"""ZERO: a vote of an image's confident views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.losses import chosen_views, least
from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State, ViewPolicy

from ._matching import NEEDS, Matching, entropies, text_scale


@dataclass(frozen=True)
class Zero(Matching):
    """Let the views of least entropy vote, each for its most likely class.

    ``votes_c = sum_{v in S} [argmax_k z_vk = c]`` over the views S of least entropy.

    Where classes tie, the remaining views are asked in order of their entropy: the first that predicts one of the tied
    classes gives it one vote more. Where none does, the tied class of largest probability among the voters gets it.

    Source: Farina et al., NeurIPS 2024, arXiv:2405.18330, algorithm 1.
    Differs: the last resort of a tie; the reference's indexes by a bitwise complement, and no golden case reaches it.
    """

    views: int = 64
    selection: float = 0.3

    card: ClassVar[Card] = Card(
        paper="arXiv:2405.18330",
        title="Frustratingly Easy Test-Time Adaptation of Vision-Language Models",
        authors="Farina, Matteo and Franchi, Gianni and Iacca, Giovanni and Mancini, Massimiliano and Ricci, Elisa",
        venue="Advances in Neural Information Processing Systems",
        year=2024,
        category="episodic",
        updates="inference",
        inputs="features",
        needs=NEEDS,
        views=ViewPolicy(64),
        output="votes",
        predicts="before",
        reset="image",
        model="pocket-clip",
        independent=True,
        vmappable=True,
        precision=ALL_PRECISIONS,
        idle=(("views", 1),),
        parity="vlm/zero",
        cost="64 forward with 64 views",
        notes="The scores are counts of votes, not probabilities.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "farina-2024": {"views": 64, "selection": 0.3},
        "farina-2024-ensemble": {"views": 64, "selection": 0.3, "prompts": "ensemble"},
        "majority": {"selection": 1.0},
    }

    def observe(self, source: SourceModel, state: State, inputs: Inputs) -> tuple[State, dict[str, Tensor]]:
        """Return the state unchanged and the votes (N, K)."""
        rows = self.rows(inputs)
        logits = text_scale(source) * rows @ state["text"].T
        p = logits.softmax(-1)
        entropy = entropies(p)
        order, kept = entropy.argsort(dim=-1, stable=True), least(entropy, self.selection).shape[-1]
        cast = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)  # (N, V, K)
        cast, p = chosen_views(cast, order), chosen_views(p, order)
        votes = cast[:, :kept].sum(1)
        tied = votes == votes.amax(-1, keepdim=True)
        winner = _winner(cast[:, kept:], p[:, :kept].sum(1), tied)
        contested = (tied.sum(-1, keepdim=True) > 1).to(votes.dtype)
        return state, {"votes": votes + contested * F.one_hot(winner, votes.shape[-1]).to(votes.dtype)}

    def score(self, source: SourceModel, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the votes (N, K)."""
        return evidence["votes"]


def _winner(rest: Tensor, support: Tensor, tied: Tensor) -> Tensor:
    """Return the class (N,) that wins a tie.

    Args:
        rest: (N, R, K) one-hot votes of the views that were not asked, in order of their entropy.
        support: (N, K) summed probabilities of those that were.
        tied: (N, K) whether a class has the most votes.
    """
    likeliest = support.masked_fill(~tied, -1.0).argmax(-1)
    if rest.shape[1] == 0:
        return likeliest
    names = (rest * tied.unsqueeze(1)).sum(-1)  # (N, R), 1 where a view names a tied class
    first = names.argmax(-1)  # the first of equals
    named = rest.gather(1, first.view(-1, 1, 1).expand(-1, 1, rest.shape[-1])).squeeze(1).argmax(-1)
    return torch.where(names.amax(-1) > 0, named, likeliest)
