# SPDX-License-Identifier: Apache-2.0
"""Shared by replays of feature-space methods: the evidence of every step, and features as they were stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from tta_bench.method import Inputs, SourceModel, State, Task
from tta_bench.optim import Tensors
from tta_bench.parity.plans import method
from tta_bench.parity.vlm_case import VlmCase
from tta_bench.steps import size

from .._matching import Matching


class Watched(NamedTuple):
    """A method's outputs over a stream.

    Attributes:
        scores: (N, K).
        evidence: By name, one row per image.
        last: The state after the last step.
    """

    scores: Tensor
    evidence: Tensors
    last: State


def watch(made: Matching, source: SourceModel, stream: Iterable[Inputs]) -> Watched:
    """Run a method over a stream and keep the evidence of every step besides the scores."""
    steps = list(stream)
    count = sum(size(inputs) for inputs in steps)
    state = made.init(source, Task(source.num_classes, source.class_names, size(steps[0]), count))
    scores, found = [], []
    for inputs in steps:
        state, evidence = made.observe(source, state, inputs)
        scores.append(made.score(source, evidence))
        found.append(evidence)
    joined = {name: torch.cat([evidence[name] for evidence in found]) for name in found[0]}
    return Watched(torch.cat(scores), joined, state)


def as_stored(made: Matching) -> Matching:
    """Return a method that takes features and texts as they are.

    Golden features are of unit length but for their rounding to float32, and most references do not normalise them.
    """

    class Stored(type(made)):  # type: ignore[misc]
        def rows(self, inputs: Inputs) -> Tensor:
            found = inputs.features if self.views == 1 else inputs.view_features
            assert found is not None
            return found.unsqueeze(1) if self.views == 1 else found

        def texts(self, source: SourceModel) -> Tensor:
            assert source.text is not None
            return source.text.features(source.class_names)

    values = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    stored: Matching = Stored(**values)
    return stored


def replayed(case: VlmCase, name: str, *, batch: int = 1, stored: bool = True, **values: object) -> Watched:
    """Run a method over the recorded features of a case.

    Args:
        case: The case.
        name: Of the method.
        batch: Images of a step.
        stored: Whether the reference took features and texts as they are.
        values: Hyper-parameters.
    """
    made = method(name, **values)
    features = case.features
    return watch(as_stored(made) if stored else made, features.source, features.stream(batch))


def count_of_views(case: VlmCase, several: bool) -> int:
    """Return the number of recorded views, or 1."""
    return case.features.views.shape[1] if several else 1
