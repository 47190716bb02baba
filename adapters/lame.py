# SPDX-License-Identifier: Apache-2.0
"""LAME: correction of a batch's predictions by Laplacian regularisation, the model being left alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, Method, SourceModel, State

AT_ONCE = 1 << 24
"""Numbers in the largest block of explicit differences."""


@dataclass(frozen=True)
class Lame(Method):
    """Let images with similar features agree on their class.

    ``Y = softmax(-U + W Y)`` from ``softmax(-U)`` on, with ``U = -ln(softmax(z) + 1e-10)`` and affinities W of unit
    features: ``kNN`` 1 for the k nearest others; ``rbf`` exp(-D^2 / (2 s^2)), s the mean distance to the k-th
    nearest counting the image itself; ``linear`` the cosines. It ends when the energy
    ``sum(U Y - (W Y) Y + Y ln Y)`` no longer changes.

    Source: Boudiaf et al., CVPR 2022, arXiv:2201.05718, eqs. 4 to 7 and algorithm 1.
    Differs: nothing. The stop test is below float32's resolution: it fires when the energy repeats exactly, so
    distances are explicit differences and the energy is one sum, in the order of the reference.

    Attributes:
        affinity: Which affinities.
        k: Neighbours.
        symmetric: Whether the affinities are made symmetric.
        steps: Iterations at most.
        tolerance: Relative change of the energy at which it ends.
    """

    affinity: Literal["kNN", "rbf", "linear"] = "rbf"
    k: int = 5
    symmetric: bool = False
    steps: int = 100
    tolerance: float = 1e-8

    card: ClassVar[Card] = Card(
        paper="arXiv:2201.05718",
        title="Parameter-free Online Test-time Adaptation",
        authors="Boudiaf, Malik and Mueller, Romain and Ben Ayed, Ismail and Bertinetto, Luca",
        venue="Conference on Computer Vision and Pattern Recognition",
        year=2022,
        category="transductive",
        updates="inference",
        output="probabilities",
        predicts="before",
        reset="batch",
        precision=ALL_PRECISIONS,
        parity="online/lame",
        cost="1 forward",
        notes="Made for streams whose classes are correlated; harmful on shuffled streams of many classes.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "boudiaf-2022": {"affinity": "rbf", "k": 5},
        "kNN": {"affinity": "kNN", "k": 5},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.affinity not in ("kNN", "rbf", "linear"):
            raise BadInputError(f"affinity must be 'kNN', 'rbf' or 'linear', got {self.affinity!r}")
        if self.k < 1 or self.steps < 1 or not self.tolerance >= 0:
            raise BadInputError(
                "k and steps must be 1 or more and tolerance 0 or more, "
                f"got {self.k}, {self.steps} and {self.tolerance}"
            )

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state unchanged and the corrected probabilities of the batch."""
        assert inputs.images is not None
        with torch.no_grad():
            seen = source.forward(inputs.images)
            unary = -(seen.logits.softmax(-1) + 1e-10).log()
            return Adapted(state, self._agree(unary, self._affinities(F.normalize(seen.features, dim=-1))))

    def _affinities(self, features: Tensor) -> Tensor:
        """Return the affinities (N, N) of unit features (N, D)."""
        count = len(features)
        if self.affinity == "linear":
            weights = features @ features.T
        else:
            distances = _distances(features)
            nearest = distances.topk(min(self.k + (self.affinity == "kNN"), count), largest=False)
            if self.affinity == "kNN":
                weights = torch.zeros_like(distances).scatter_(1, nearest.indices[:, 1:], 1.0)
            else:
                width = nearest.values[:, -1].mean().clamp(min=torch.finfo(distances.dtype).tiny)
                weights = torch.exp(
                    -(distances**2) / (2 * width**2).clamp(min=torch.finfo(distances.dtype).tiny)
                )
        return 0.5 * (weights + weights.T) if self.symmetric else weights

    def _agree(self, unary: Tensor, weights: Tensor) -> Tensor:
        """Return the assignments (N, K) at which the energy of unary costs (N, K) comes to rest."""
        assigned, before = (-unary).softmax(-1), float("inf")
        for index in range(self.steps):
            pairwise = weights @ assigned
            assigned = (-unary + pairwise).softmax(-1)
            terms = unary * assigned - pairwise * assigned + assigned * assigned.clamp(min=1e-20).log()
            energy = float(terms.sum())
            if index > 1 and abs(energy - before) <= self.tolerance * abs(before):
                break
            before = energy
        return assigned


def _distances(features: Tensor) -> Tensor:
    """Return the Euclidean distances (N, N) from explicit differences, in blocks of rows."""
    rows = max(1, AT_ONCE // max(1, features.numel()))
    blocks = [(part[:, None] - features).norm(dim=-1) for part in torch.split(features, rows)]
    return torch.cat(blocks)
