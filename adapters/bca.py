# SPDX-License-Identifier: Apache-2.0
"""BCA: class centres and a class prior that both follow the predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State, Task

from ._gaussian import merged
from ._matching import NEEDS, Matching, confident, consensus, text_scale
from ._ranges import positive, within


@dataclass(frozen=True)
class Bca(Matching):
    """Adapt the likelihood and the prior of each class to the images it is predicted for.

    ``p = softmax(s f.M) R`` over centres M, which start at the class texts, and a prior R (K, K), which starts at the
    identity. The most likely class c then moves: ``m_c <- unit((a_c m_c + f) / (a_c + 1))`` where its probability is
    above one threshold, ``R_c <- (b_c R_c + p) / (b_c + 1)`` where it is above another. p is from before.

    Source: Zhou et al., CVPR 2025, arXiv:2503.09248, section 3.
    Differs: the constants are those of a port; the authors' code is not available.

    Attributes:
        centre_threshold: Least probability for a centre to move.
        centre_count: Images that a centre counts for at first.
        prior_threshold: Least probability for a prior to move.
        prior_count: Images that a prior counts for at first.
    """

    centre_threshold: float = 0.05
    centre_count: float = 20000.0
    prior_threshold: float = 0.65
    prior_count: float = 1.0

    card: ClassVar[Card] = Card(
        paper="arXiv:2503.09248",
        title="Bayesian Test-Time Adaptation for Vision-Language Models",
        authors="Zhou, Lihua and Ye, Mao and Li, Shuaifeng and Li, Nianxin and Zhu, Xiatian and Deng, Lei and "
        "Liu, Hongbin and Lei, Zhen",
        venue="Conference on Computer Vision and Pattern Recognition",
        year=2025,
        category="online",
        updates="state",
        inputs="features",
        needs=NEEDS,
        output="probabilities",
        predicts="before",
        model="pocket-clip",
        precision=ALL_PRECISIONS,
        idle=(("centre_threshold", 1.0), ("prior_threshold", 1.0)),
        parity="vlm/bca",
        cost="1 forward",
        notes="Online and without gradients; its prior holds K x K numbers.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {"ttabc": {"views": 64}, "ttabc-one-view": {}}

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        within(self, 0, 1, "centre_threshold", "prior_threshold")
        positive(self, "centre_count", "prior_count")

    def init(self, source: SourceModel, task: Task) -> State:
        """Return centres (K, D) and prior (K, K), each with its counts (K,)."""
        text = self.texts(source)
        return {
            "centres": text,
            "centre_counts": torch.full_like(text[:, 0], self.centre_count),
            "prior": torch.eye(len(text), dtype=text.dtype, device=text.device),
            "prior_counts": torch.full_like(text[:, 0], self.prior_count),
        }

    def observe(self, source: SourceModel, state: State, inputs: Inputs) -> tuple[State, dict[str, Tensor]]:
        """Return the state after the images, one by one, and the probabilities of each from before it."""
        scale, found = text_scale(source), []
        for rows in torch.split(self.rows(inputs), 1):
            chosen = confident(rows, scale * rows @ state["centres"].T, self.selection)
            seen = consensus(chosen.rows, chosen.logits)
            p = (seen.logits.softmax(-1) @ state["prior"])[0]
            state = self._learned(state, seen.feature[0], p)
            found.append(p)
        return state, {"p": torch.stack(found)}

    def _learned(self, state: State, feature: Tensor, p: Tensor) -> State:
        """Return the state after one image of feature (D,) and probabilities p (K,)."""
        top = F.one_hot(p.argmax(), len(p)).to(p.dtype)
        moves = top * (p > self.centre_threshold), top * (p > self.prior_threshold)
        centres, prior = (
            merged(state[name], state[counts], torch.outer(move, new), move)
            for name, counts, move, new in (
                ("centres", "centre_counts", moves[0], feature), ("prior", "prior_counts", moves[1], p)
            )
        )  # fmt: skip
        return {
            "centres": torch.where(
                moves[0].unsqueeze(-1) > 0, F.normalize(centres, dim=-1), state["centres"]
            ),
            "centre_counts": state["centre_counts"] + moves[0],
            "prior": torch.where(moves[1].unsqueeze(-1) > 0, prior, state["prior"]),
            "prior_counts": state["prior_counts"] + moves[1],
        }

    def score(self, source: SourceModel, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the probabilities (N, K)."""
        return evidence["p"]
