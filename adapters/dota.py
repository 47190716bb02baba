# SPDX-License-Identifier: Apache-2.0
"""DOTA: one Gaussian for each class, estimated online from zero-shot probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State, Task

from ._gaussian import discriminants, merged, pooled_precision, scatter
from ._matching import NEEDS, Matching, confident, text_scale
from ._ranges import one_of, positive, within

PUBLISHED: dict[str, tuple[float, float, float]] = {
    "caltech101": (0.3, 0.02, 2e-3), "dtd": (0.3, 0.02, 1e-4), "eurosat": (3.0, 0.05, 1e-4),
    "fgvc-aircraft": (0.2, 0.01, 1e-4), "food101": (0.1, 0.01, 4e-5), "imagenet": (0.2, 0.005, 1e-4),
    "imagenet-a": (0.5, 0.02, 1e-4), "imagenet-r": (0.3, 0.0025, 1e-4), "imagenet-sketch": (0.8, 0.03, 1e-4),
    "imagenet-v2": (0.1, 0.01, 1e-4), "flowers102": (0.2, 0.02, 1e-4), "oxford-pets": (0.3, 0.02, 1e-4),
    "stanford-cars": (0.3, 0.01, 1e-4), "sun397": (0.2, 0.01, 1e-4), "ucf101": (0.4, 0.02, 1e-4),
}  # fmt: skip
"""Published ``eta``, ``rho`` and ``epsilon`` by dataset; they were chosen on the test sets."""


@dataclass(frozen=True)
class Dota(Matching):
    """Add to the zero-shot logits the discriminant of class Gaussians that learn from them.

    ``z = s f.T + w (f.P m_c - m_c.P m_c / 2)`` with ``w = min(rho mean(n) / k, eta)``: weight grows with the images
    seen. Then the k confident views, by their probabilities, enter the counts n, means m and covariances; P is the
    inverse of the mean covariance, shrunk by ``epsilon``. An image is scored before it enters.

    Source: Han et al., arXiv:2409.19375, eqs. 4 to 10.
    Differs: nothing; means start at 0.001 as in the authors' code, or at the class texts as in a port of it.

    Attributes:
        sigma: First variance.
        epsilon: Share of the identity in the covariance that is inverted.
        eta: Largest weight of the discriminant.
        rho: Growth of that weight.
        start: ``"constant"`` for means of 0.001, or ``"text"``.
        shrink_first: Shrink the covariance before the first image too.
    """

    sigma: float = 2e-3
    epsilon: float = 1e-4
    eta: float = 0.3
    rho: float = 0.02
    start: Literal["constant", "text"] = "constant"
    shrink_first: bool = False

    card: ClassVar[Card] = Card(
        paper="arXiv:2409.19375",
        title="DOTA: Distributional Test-Time Adaptation of Vision-Language Models",
        authors="Han, Zongbo and Yang, Jialong and Li, Junfan and Hu, Qinghua and Xu, Qianli and Shou, Mike Zheng and "
        "Zhang, Changqing",
        venue="arXiv",
        year=2024,
        category="online",
        updates="state",
        inputs="features",
        needs=NEEDS,
        predicts="before",
        model="pocket-clip",
        precision=ALL_PRECISIONS,
        idle=(("eta", 0.0),),
        parity="vlm/dota",
        reference_licence="MIT",
        cost="1 forward + the inverse of a D x D matrix",
        notes="Online and without gradients; its state holds K x D x D numbers. The scores are logits on no known "
        "scale: fit a temperature before calibration is compared. The published settings were chosen on each test set.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **{
            name: {"eta": eta, "rho": rho, "epsilon": epsilon}
            | ({"views": 64, "augmentation": "augmix"} if name.startswith("imagenet-") else {})
            for name, (eta, rho, epsilon) in PUBLISHED.items()
        },
        "ttabc": {"start": "text", "shrink_first": True, "views": 64},
    }
    scoring: ClassVar[frozenset[str]] = frozenset({"eta", "rho"})

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        positive(self, "sigma")
        within(self, 0, 1, "epsilon")
        within(self, 0, inf, "eta", "rho")
        one_of(self, "start", "constant", "text")

    def init(self, source: SourceModel, task: Task) -> State:
        """Return class texts and means (K, D), counts (K,), covariances (K, D, D) and the shared precision (D, D)."""
        text = self.texts(source)
        covariance = self.sigma * torch.eye(text.shape[1], dtype=text.dtype, device=text.device)
        return {
            "text": text,
            "means": text.clone() if self.start == "text" else torch.full_like(text, 1e-3),
            "counts": torch.ones_like(text[:, 0]),
            "covariances": covariance.repeat(len(text), 1, 1),
            "precision": pooled_precision(covariance, self.epsilon if self.shrink_first else 0.0),
        }

    def observe(self, source: SourceModel, state: State, inputs: Inputs) -> tuple[State, dict[str, Tensor]]:
        """Return the estimates after the images, one by one, and what each image met at its turn."""
        rows = self.rows(inputs)
        chosen = confident(rows, text_scale(source) * rows @ state["text"].T, self.selection)
        found, counts = [], []
        for x, logits, _ in zip(*chosen, strict=True):
            found.append(discriminants(x.mean(0, keepdim=True), state["means"], state["precision"])[0])
            counts.append(state["counts"].mean() / len(x))
            state = self._learned(state, x, logits.softmax(-1))
        evidence = {"discriminant": torch.stack(found), "count": torch.stack(counts)}
        return state, {"logits": chosen.logits.mean(1), **evidence}

    def _learned(self, state: State, x: Tensor, p: Tensor) -> State:
        """Return the state after the rows x (k, D) of one image with probabilities p (k, K)."""
        means, counts, weight = state["means"], state["counts"], p.sum(0)
        covariances = merged(state["covariances"], counts, scatter(x, p, means), weight)
        return {
            **state,
            "means": merged(means, counts, p.T @ x, weight),
            "counts": counts + weight,
            "covariances": covariances,
            "precision": pooled_precision(covariances.mean(0), self.epsilon),
        }

    def score(self, source: SourceModel, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the logits (N, K)."""
        return evidence["logits"] + self.weight(evidence) * evidence["discriminant"]

    def weight(self, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the weight (N, 1) of the discriminant."""
        return (self.rho * evidence["count"]).clamp(max=self.eta).unsqueeze(-1)
