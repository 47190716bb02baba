# SPDX-License-Identifier: Apache-2.0
"""A method on one tiny source model: the few things that checks do with it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tta_bench.checks.core import promise
from tta_bench.checks.trees import TOLERANCE, deviation
from tta_bench.method import Adapted, Inputs, Method, State
from tta_bench.models.source import SourceModel
from tta_bench.steps import Stepped, Way, checked, step, way_of
from tta_bench.testing import sources_for, tiny_inputs, tiny_task

BATCH = 4
DTYPES = {"float32": torch.float32, "float64": torch.float64}
LOWER = "bfloat16"
"""Precision under autocast: tensors are float32."""


@dataclass(frozen=True)
class Bench:
    """A method on one tiny source model.

    Attributes:
        method: The method.
        source: The model.
    """

    method: Method
    source: SourceModel

    @property
    def where(self) -> str:
        """Name the model and type, for messages."""
        name = str(self.source.autocast or self.source.dtype).removeprefix("torch.")
        return f"on {self.source.name} in {name}"

    @property
    def alone(self) -> bool:
        """Whether the card's reset makes every image an episode of its own."""
        return self.method.card.reset == "image"

    @property
    def way(self) -> Way:
        """The kind of step the runner takes under the card's reset."""
        return way_of(self.method, per_image=self.alone)

    def again(self) -> Bench:
        """Return a bench with a new model and a copy of the method, which share nothing with this one."""
        models = sources_for(self.method, dtype=self.source.dtype)
        same = next(model for model in models if model.name == self.source.name)
        if self.source.autocast is not None:
            same.round_products(self.source.autocast)
        return Bench(copy.deepcopy(self.method), same)

    def init(self) -> State:
        """Return the method's initial state."""
        return self.method.init(self.source, tiny_task(self.source, self.method, batch_size=BATCH))

    def inputs(self, n: int = BATCH, seed: int = 0, *, per_image: bool | None = None) -> Inputs:
        """Return a batch of N images with all that the card needs."""
        return tiny_inputs(self.source, n, method=self.method, seed=seed, per_image=per_image)

    def episode(self, seed: int = 0) -> Inputs:
        """Return a batch that may be handed to `Method.adapt` itself: one image where each is an episode."""
        single = self.alone and not self.method.card.independent
        return self.inputs(1 if single else BATCH, seed)

    def adapt(self, state: State, inputs: Inputs) -> Adapted:
        """Return what `Method.adapt` gives."""
        return checked(self.method, self.method.adapt(self.source, state, inputs))

    def adapted(self, count: int = 2) -> State:
        """Return the state after a few calls of `Method.adapt`, whatever the card's reset is."""
        state = self.init()
        for seed in range(count):
            state = self.adapt(state, self.episode(seed)).state
        return state

    def step(self, state: State, inputs: Inputs, way: Way | None = None) -> Stepped:
        """Take a step as the runner would."""
        return step(self.method, self.source, state, inputs, way=way or self.way)

    def steps(self, state: State, seeds: range, n: int = BATCH) -> tuple[State, list[Tensor]]:
        """Take a step for each seed and return the last state and all scores."""
        scores = []
        for seed in seeds:
            stepped = self.step(state, self.inputs(n, seed))
            state = stepped.state
            scores.append(stepped.scores)
        return state, scores

    def close(self, first: Tensor, second: Tensor, what: str) -> None:
        """Promise that two tensors agree within the tolerance of the model's floating type."""
        limit, found = TOLERANCE[self.source.dtype], deviation(first, second)
        promise(found <= limit, f"{what} by {found:.1e}, more than {limit:.0e}, {self.where}")


def benches(method: Method, *, precisions: tuple[str, ...] = ("float32", LOWER)) -> Iterator[Bench]:
    """Yield a bench for each tiny model that suits the method's card, in each precision that it is good for.

    Args:
        method: The method.
        precisions: Precisions to use; where the card has none of them, those of its floating types.
    """
    allowed = [name for name in precisions if name in method.card.precision]
    for name in allowed or sorted(method.card.precision & DTYPES.keys()):
        for source in sources_for(method, dtype=DTYPES.get(name, torch.float32)):
            if name == LOWER:
                source.round_products(torch.bfloat16)
            yield Bench(method, source)


def both(method: Method) -> Iterator[Bench]:
    """Yield benches in float32 and in float64."""
    return benches(method, precisions=("float32", "float64"))
