# SPDX-License-Identifier: Apache-2.0
"""CMF: ROID's loss, with a filter between the source model and the adapted one instead of a fixed average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.method import ALL_PRECISIONS, Card, SourceModel, State
from tta_bench.optim import Tensors, ema, widest

from ._weighted import PRESETS, Weighted

UNIT = 38400  # adapted numbers for which the process noise is `noise` itself
LEAST, SURE = 0.89, 0.9999


@dataclass(frozen=True)
class Cmf(Weighted):
    """Take ROID's step, then mix in a hidden model that a Kalman-like filter tracks.

    The hidden model h starts at the source model's tensors with variance v = 0. With process noise
    ``Q = noise * P / 38400`` for P adapted numbers and ``R = 1 - Q``: predict
    ``h <- alpha h + (1 - alpha) theta_source``, ``v <- alpha^2 v + Q``; weigh ``beta = R / (v + R)``, not below
    0.89 and 1 from 0.9999 on; update ``h <- beta h + (1 - beta) theta``, ``v <- beta v``; then
    ``theta <- gamma theta + (1 - gamma) h``. Loss, weights and corrected logits are those of ROID.

    Source: Lee and Chang, ICLR 2024, "Continual Momentum Filtering on Parameter Space for Online Test-time
    Adaptation"; the constants 38400, 0.89 and 0.9999 are those of its published code.
    Differs: a reset also clears the variance; Q is at most 1; N and the weights are as in our ROID. The
    published code's second variant, which mixes in the predicted h, gives what this one does and is left out.

    Attributes:
        temperature: Divides the product of a sample's diversity and certainty in the exponent of its weight.
        keep: Share of the mean prediction that is kept at each batch.
        alpha: Share of the hidden model that its prediction keeps.
        gamma: Share of the adapted tensors that is kept.
        noise: Process noise of a model with 38400 adapted numbers.
        weighting: Whether samples are weighted and those like the mean prediction left out.
        consistency: Whether the predictions of augmented copies are to agree with those of the images.
        prior_correction: Whether the logits are corrected by the batch's mean prediction.
    """

    alpha: float = 0.99
    gamma: float = 0.99
    noise: float = 0.005

    card: ClassVar[Card] = Card(
        paper="openreview:BllUWdpIOA",
        title="Continual Momentum Filtering on Parameter Space for Online Test-time Adaptation",
        authors="Lee, Jae-Hong and Chang, Joon-Hyuk",
        venue="International Conference on Learning Representations",
        year=2024,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients"}),
        predicts="before",
        precision=ALL_PRECISIONS,
        parity="online/cmf",
        cost="2 forward + 2 backward; the second of each over the weighted samples alone",
        notes="Process noise scales with the adapted numbers: in small models beta is 1 and the hidden model stays "
        "at the source's. Corrected logits are scaled class by class, so calibration means little.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if not (0 <= self.alpha <= 1 and 0 <= self.gamma <= 1 and self.noise >= 0):
            raise BadInputError(
                f"alpha and gamma must lie in [0, 1] and noise be 0 or more, got {self.alpha}, {self.gamma} "
                f"and {self.noise}"
            )

    def initial_state(self, source: SourceModel) -> State:
        """Return the first state: the hidden model is the source model, without variance."""
        state = super().initial_state(source)
        variance = torch.zeros((), dtype=widest(source.device), device=source.device)
        return {**state, "hidden": dict(state["params"]), "variance": variance}

    def ensembled(self, source: SourceModel, state: State) -> State:
        """Return the state after a step of the filter."""
        params: Tensors = state["params"]
        noise = min(1.0, self.noise * sum(p.numel() for p in params.values()) / UNIT)
        predicted = ema(state["hidden"], source.params, keep=self.alpha)
        variance: Tensor = self.alpha**2 * state["variance"] + noise
        beta = ((1 - noise) / (variance + (1 - noise))).clamp(min=LEAST)
        beta = torch.where(beta >= SURE, torch.ones_like(beta), beta)
        hidden = {name: torch.lerp(params[name], h, beta.to(h.dtype)) for name, h in predicted.items()}
        mixed = ema(params, hidden, keep=self.gamma)
        return {**state, "params": mixed, "hidden": hidden, "variance": beta * variance}
