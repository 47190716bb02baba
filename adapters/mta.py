# SPDX-License-Identifier: Apache-2.0
"""MTA: the mode of an image's views, found by a mean shift that learns how far each view belongs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State, ViewPolicy

from ._matching import NEEDS, Matching, text_scale
from ._ranges import positive, within


@dataclass(frozen=True)
class Mta(Matching):
    """Classify the densest place among the views of an image.

    In turn, with kernels ``K_p = exp(-|x_p - m|^2 / (2 h_p^2))`` and affinities ``A`` of the views' predictions:
    inlierness ``y = softmax((K + lambda_q A y) / lambda_y)``, then the mode ``m = unit(sum_p K_p y_p x_p)``;
    ``z = s m.T``. The bandwidth ``h_p^2`` is half the mean squared distance to the nearest share of other views.

    Source: Zanella & Ben Ayed, CVPR 2024, arXiv:2405.02266, eqs. 5 to 9 and algorithm 1.
    Differs: distances are explicit differences; the reference's lose digits for near-duplicates.

    Attributes:
        lambda_y: Weight of the entropy of the inlierness.
        lambda_q: Weight of the affinities.
        neighbours: Share of the other views that the bandwidth comes from.
        steps: Rounds, and steps at most of each half of a round.
        tolerance: Change at which such a half ends.
    """

    views: int = 64
    lambda_y: float = 0.2
    lambda_q: float = 4.0
    neighbours: float = 0.3
    steps: int = 5
    tolerance: float = 1e-6

    card: ClassVar[Card] = Card(
        paper="arXiv:2405.02266",
        title="On the Test-Time Zero-Shot Generalization of Vision-Language Models: Do We Really Need Prompt Learning?",
        authors="Zanella, Maxime and Ben Ayed, Ismail",
        venue="Conference on Computer Vision and Pattern Recognition",
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
        precision=ALL_PRECISIONS,
        parity="vlm/mta",
        cost="64 forward with 64 views",
        notes="Without gradients; the views are random crops and flips.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "zanella-2024": {"lambda_y": 0.2, "lambda_q": 4.0, "views": 64},
        "zanella-2024-ensemble": {"lambda_y": 0.2, "lambda_q": 4.0, "views": 64, "prompts": "ensemble"},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        positive(self, "lambda_y")
        within(self, 0, inf, "lambda_q", "tolerance")
        within(self, 0, 1, "neighbours")
        within(self, 1, inf, "steps")
        if self.views < 2:
            raise BadInputError(f"views must be 2 or more for a density, got {self.views}")

    def observe(self, source: SourceModel, state: State, inputs: Inputs) -> tuple[State, dict[str, Tensor]]:
        """Return the state unchanged, and the mode (N, D) of each image's views with what led to it."""
        x, scale = self.rows(inputs), text_scale(source)
        p = (scale * x @ state["text"].T).softmax(-1)
        width = self._bandwidth(x)
        found = self._mode(x, width, p @ p.transpose(1, 2))
        return state, {**found, "bandwidth": width.sqrt(), "logits": scale * found["mode"] @ state["text"].T}

    def score(self, source: SourceModel, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the logits (N, K) of the modes."""
        return evidence["logits"]

    def _bandwidth(self, x: Tensor) -> Tensor:
        """Return the squared bandwidth (N, V) of each view."""
        squared = torch.stack([(x - x[:, v : v + 1]).square().sum(-1) for v in range(x.shape[1])], 1)
        near = max(1, int(self.neighbours * (x.shape[1] - 1)))
        return 0.5 * squared.sort(-1).values[..., 1 : near + 1].mean(-1)

    def _mode(self, x: Tensor, width: Tensor, affinity: Tensor) -> dict[str, Tensor]:
        """Return mode (N, D), inlierness (N, V) and the weights (N, V) of the last step of the mode."""
        least = torch.finfo(x.dtype).eps  # equal views have no width, and differ from their mean by rounding

        def kernel(mode: Tensor) -> Tensor:
            squared = (x - mode.unsqueeze(1)).square().sum(-1)
            return torch.exp(-squared / (2 * width).clamp(min=least))

        def moved(mode: Tensor) -> tuple[Tensor, Tensor]:
            weights = kernel(mode) * y
            return F.normalize((weights.unsqueeze(-1) * x).sum(1), dim=-1), weights

        def rated(y: Tensor) -> tuple[Tensor, Tensor]:
            agreed = (affinity @ y.unsqueeze(-1)).squeeze(-1)
            return ((density + self.lambda_q * agreed) / self.lambda_y).softmax(-1), y

        mode, y = x[:, 0], torch.full_like(width, 1 / width.shape[1])
        weights = y
        for _ in range(self.steps):
            density = kernel(mode)
            y, _ = self._settled(rated, y, y)
            mode, weights = self._settled(moved, mode, weights)
        return {"mode": mode, "inlierness": y, "weights": weights}

    def _settled(
        self, step: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, beside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return where repeated steps come to rest, image by image, and what the last step gave beside it."""
        at = start
        moving = torch.ones(len(start), 1, dtype=torch.bool, device=start.device)
        for _ in range(self.steps):
            new, along = step(at)
            change = (new - at).norm(dim=-1, keepdim=True)
            at, beside = torch.where(moving, new, at), torch.where(moving, along, beside)
            moving = moving & (change >= self.tolerance)
        return at, beside
