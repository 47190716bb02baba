# SPDX-License-Identifier: Apache-2.0
"""Shared by UnMix-TNS alone and under a host: the components of every BatchNorm layer, and their initial values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.method import Method, SourceModel, State, Task
from tta_bench.norms import NormRule, unmixed
from tta_bench.optim import Tensors, widest

from ._layers import stored_statistics

MEAN, VAR = "running_mean", "running_var"
UNMIX: dict[str, Any] = {
    "paper": "UnMix-TNS, ICLR 2024",
    "title": "Un-Mixing Test-Time Normalization Statistics: Combatting Label Temporal Correlation",
    "authors": "Tomar, Devavrat and Vray, Guillaume and Thiran, Jean-Philippe and Bozorgtabar, Behzad",
    "venue": "International Conference on Learning Representations",
    "year": 2024,
}


@dataclass(frozen=True)
class Unmixing(Method):
    """Keep several components of statistics in each BatchNorm layer.

    Attributes:
        components: Components K of each layer; 1 has no noise.
        noise: Share alpha of the source variance that spreads the first means.
        temperature: Of the likeness between an instance and the components.
        full_batch: Batch size that the layers' own momentum is meant for; smaller ones move components less.
        between: Whether a component's variance has the spread between its old mean and the instance too.
    """

    components: int = 16
    noise: float = 0.5
    temperature: float = 0.07
    full_batch: int = 64
    between: bool = False

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.components < 1 or self.full_batch < 1:
            raise BadInputError(
                f"components and full_batch must be 1 or more, got {self.components} and {self.full_batch}"
            )
        if not 0 <= self.noise <= 1 or not self.temperature > 0:
            raise BadInputError(
                f"noise must lie in [0, 1] and temperature be above 0, got {self.noise} and {self.temperature}"
            )

    def unset_components(self, source: SourceModel, task: Task) -> State:
        """Return the components (K, C) before their first noise: the stored statistics, K times each."""
        alpha = self.noise if self.components > 1 else 0.0
        stats = {}
        for name, stored in stored_statistics(source).items():
            kept = stored if name.endswith(MEAN) else (1 - alpha) * stored
            stats[name] = kept.expand(self.components, -1).clone()
        share = torch.tensor(
            task.batch_size / self.full_batch, dtype=widest(source.device), device=source.device
        )
        begun = torch.zeros((), dtype=torch.bool, device=source.device)
        return {"stats": stats, "share": share, "begun": begun}

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Tensors | None:
        """Return standard normal numbers (1, K, C) for each layer; the first step's alone are used."""
        if self.components == 1:
            return None
        shapes = {
            name: len(value) for name, value in stored_statistics(source).items() if name.endswith(MEAN)
        }
        return {
            name: torch.randn(1, self.components, width, generator=generator, device=generator.device)
            for name, width in shapes.items()
        }

    def begun(self, source: SourceModel, state: State, draws: Tensors | None) -> State:
        """Return the state with the first means spread by the draws, if that has not been done."""
        if draws is None:
            return state
        spread, stats = math.sqrt(self.noise * self.components / (self.components - 1)), dict(state["stats"])
        for name, noise in draws.items():
            deviation = source.buffers[name.removesuffix(MEAN) + VAR].sqrt()
            first = stats[name] + spread * deviation * noise[0].to(deviation)
            stats[name] = torch.where(state["begun"], stats[name], first)
        return {**state, "stats": stats, "begun": torch.ones_like(state["begun"])}

    def rule(self, state: State) -> NormRule:
        """Return the rule of the layers under the components of a state."""
        return unmixed(state["stats"], state["share"], self.temperature, between=self.between)

    def adapted_tensors(self, source: SourceModel) -> tuple[str, ...]:
        """Return the names of the stored statistics that the components take the place of."""
        return tuple(stored_statistics(source))


def kept(stats: Tensors, found: Tensors) -> dict[str, Tensor]:
    """Return the components after a pass; those of layers that did not take part stay."""
    return {**stats, **{name: value.detach() for name, value in found.items()}}
