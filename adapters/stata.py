# SPDX-License-Identifier: Apache-2.0
"""StatA: a batch clustered by Gaussians that stay near the class texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State

from ._gaussian import diagonal_log_density, spread
from ._matching import NEEDS, Matching, text_scale
from ._ranges import positive, within

TEMPERATURE = 50.0
INNER_STEPS = 5


class Statistics(NamedTuple):
    """Means and variances (K, D) of the classes."""

    means: Tensor
    variances: Tensor


@dataclass(frozen=True)
class StatA(Matching):
    """Assign a batch to classes by expectation and maximisation, anchored to the texts.

    In turn: ``z ~ y exp((g + lambda (W + W^T) z - ln|S| / 2) / 50)`` with zero-shot probabilities y, diagonal Gaussian
    log-densities g, and W the cosines of each image's nearest others; then means and variances between those of the
    assigned images and the text's, the more the former the more images a class has: ``beta = n / (alpha + n)``.

    Source: Zanella et al., CVPR 2025, arXiv:2501.03729, eqs. 5 to 10.
    Differs: nothing; the first variance is over the whole batch, whatever its size.

    Attributes:
        alpha: Images for which the texts count.
        affinity: Weight of the neighbours.
        neighbours: Of each image.
        steps: Rounds.
        soft: Count images by their assignments instead of by their most likely class.
    """

    alpha: float = 1.0
    affinity: float = 1.0
    neighbours: int = 3
    steps: int = 10
    soft: bool = False

    card: ClassVar[Card] = Card(
        paper="arXiv:2501.03729",
        title="Realistic Test-Time Adaptation of Vision-Language Models",
        authors="Zanella, Maxime and Fuchs, Cl{\\'e}ment and De Vleeschouwer, Christophe and Ben Ayed, Ismail",
        venue="Conference on Computer Vision and Pattern Recognition",
        year=2025,
        category="transductive",
        updates="inference",
        inputs="features",
        needs=NEEDS,
        output="probabilities",
        predicts="after",
        reset="batch",
        model="pocket-clip",
        precision=ALL_PRECISIONS,
        parity="vlm/stata",
        cost="1 forward",
        notes="Transductive: a prediction depends on the whole batch; made for few classes in a batch.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {"zanella-2025": {"alpha": 1.0, "affinity": 1.0}}

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        positive(self, "alpha")
        within(self, 0, inf, "affinity", "neighbours")
        within(self, 1, inf, "steps")
        within(self, 1, 1, "views")

    def observe(self, source: SourceModel, state: State, inputs: Inputs) -> tuple[State, dict[str, Tensor]]:
        """Return the state unchanged, and zero-shot probabilities and assignments (N, K) of the batch."""
        x, text = self.rows(inputs)[:, 0], state["text"]
        y = (text_scale(source) * x @ text.T).softmax(-1)
        affinity = self._affinity(x)
        first = (spread(x, y, text).sum(0) / len(x)).clamp(min=torch.finfo(x.dtype).tiny)
        now, z = Statistics(text, first.expand_as(text)), y
        for _ in range(self.steps):
            z = _assigned(x, y, z, affinity, now)
            now = self._estimated(x, z, text, first)
        return state, {"zero_shot": y, "assigned": _assigned(x, y, z, affinity, now)}

    def _affinity(self, x: Tensor) -> Tensor:
        """Return the weights (N, N) by which images agree with their nearest others, both ways."""
        cosines = x @ x.T
        near = min(self.neighbours, len(x) - 1)
        found = cosines.argsort(dim=-1, descending=True, stable=True)[:, 1 : near + 1]
        weights = torch.zeros_like(cosines).scatter(1, found, cosines.gather(1, found))
        return self.affinity * TEMPERATURE / (2 * max(1, self.neighbours)) * (weights + weights.T)

    def _estimated(self, x: Tensor, z: Tensor, text: Tensor, first: Tensor) -> Statistics:
        """Return the statistics between those of the assigned images and those of the texts."""
        mass = z.sum(0).clamp(min=torch.finfo(x.dtype).tiny)
        count = mass if self.soft else F.one_hot(z.argmax(-1), z.shape[-1]).sum(0)
        beta = (count / (self.alpha + count)).to(x.dtype).unsqueeze(-1)
        own = F.normalize(z.T @ x / mass.unsqueeze(-1), dim=-1)
        means = F.normalize(beta * own + (1 - beta) * text, dim=-1)
        variances = spread(x, z, means) / mass.unsqueeze(-1)
        anchored = beta * variances + (1 - beta) * (first + (text - means).square())
        return Statistics(means, anchored.clamp(min=torch.finfo(x.dtype).tiny))

    def score(self, source: SourceModel, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the assignments (N, K)."""
        return evidence["assigned"]


def _assigned(x: Tensor, y: Tensor, z: Tensor, affinity: Tensor, now: Statistics) -> Tensor:
    """Return the assignments (N, K) under the statistics, with the neighbours' say."""
    own = diagonal_log_density(x, now.means, now.variances) - 0.5 * now.variances.log().sum(-1)
    for _ in range(INNER_STEPS):
        logits = (own + affinity @ z) / TEMPERATURE
        z = (y.log() + logits).softmax(-1)
    return z
