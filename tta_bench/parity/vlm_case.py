# SPDX-License-Identifier: Apache-2.0
"""One golden case of family ``vlm``, what a replay plan sees of it, and the run of a method over its stream.

A plan is a function from a `VlmCase` to what ours gave, by golden array name without the variant, or to a
sentence that says why the case is not replayed. It is registered in the entry-point group ``tta_bench.replays``
as ``vlm/<golden method>``:

    def tda(case: VlmCase) -> Mapping[str, Tensor]:
        made = method("tda", alpha=case.values["alpha"], beta=case.values["beta"])
        ran = course(made, case.features.source, case.features.stream())
        return {"logits": ran.scores, "pos_cache_feat": ran.last["positive"]["features"]}

Every golden array must be returned, or taken as an input by `VlmCase.given`. Where rounding decides a result, as the
sign of a difference that is zero but for its last bits, the plan returns `Undetermined`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tta_bench.method import Inputs, Method, State, Task
from tta_bench.models.source import SourceModel
from tta_bench.parity.folder import Entries, entry
from tta_bench.parity.plans import method as method
from tta_bench.parity.vlm_inputs import Clip, Features
from tta_bench.steps import size, step


class Undetermined(NamedTuple):
    """A method's results where rounding decides part of them.

    Attributes:
        arrays: By golden array name.
        spread: How far each element or its array moves under changes as small as rounding, by the same names.
    """

    arrays: Mapping[str, Tensor]
    spread: Mapping[str, Tensor]


Plan = Callable[["VlmCase"], Mapping[str, Tensor] | Undetermined | str]


class Shared:
    """The inputs of a golden folder, read when they are first asked for.

    Args:
        folder: The golden folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def features(self) -> Features:
        """Recorded features."""
        return Features.read(self._folder)

    @cached_property
    def clip(self) -> Clip:
        """The tiny CLIP model and its images."""
        return Clip.read(self._folder)


@dataclass(frozen=True)
class VlmCase:
    """One golden case as a plan sees it.

    Attributes:
        method: Golden method.
        name: The variant, or the golden method again where it has a single one.
        values: The hyper-parameters of the reference.
        info: The method's entry in the manifest.
        shared: The inputs of the folder.
        arrays: All golden arrays of the case by their names without the variant; take inputs by `given`.
        taken: Names of the arrays that the plan took as inputs.
    """

    method: str
    name: str
    values: Entries
    info: Mapping[str, Any]
    shared: Shared
    arrays: Mapping[str, Tensor]
    taken: set[str] = field(default_factory=set)

    @property
    def features(self) -> Features:
        """Recorded features of views and texts, with a source model that compares them."""
        return self.shared.features

    @property
    def clip(self) -> Clip:
        """The tiny CLIP model with its images."""
        return self.shared.clip

    def given(self, name: str) -> Tensor:
        """Return a golden array that is an input of the method, such as initial values or recorded draws."""
        found: Tensor = entry(self.arrays, name, f"case {self.method}/{self.name}")
        self.taken.add(name)
        return found

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Return the golden arrays that are inputs and whose names start with a prefix, by the rest of the names."""
        names = [name for name in self.arrays if name.startswith(prefix)]
        return {name[len(prefix) :]: self.given(name) for name in names}


class Course(NamedTuple):
    """Scores and states of a method over a stream.

    Attributes:
        scores: (N, K) of all images in order.
        first: The state before the first step.
        states: The state after each step; that of the episode where each step is one.
    """

    scores: Tensor
    first: State
    states: list[State]

    @property
    def last(self) -> State:
        """The state after the last step."""
        return self.states[-1]

    def stacked(self, *path: str) -> Tensor:
        """Return one leaf of the states of all steps, stacked along a new first axis."""
        leaves = []
        for state in self.states:
            leaf = state
            for key in path:
                leaf = leaf[key]
            leaves.append(leaf)
        return torch.stack(leaves)


def course(
    method: Method,
    source: SourceModel,
    stream: Iterable[Inputs],
    *,
    episodic: bool = False,
    start: Callable[[State], State] | None = None,
) -> Course:
    """Run a method over a stream by the step that the runner uses, and keep scores and states.

    Args:
        method: The method with its hyper-parameters.
        source: Its source model.
        stream: The inputs of each step.
        episodic: Whether every step starts from the first state.
        start: From the method's first state to the one that the reference started from.
    """
    steps = list(stream)
    count = sum(size(inputs) for inputs in steps)
    task = Task(source.num_classes, source.class_names, batch_size=size(steps[0]), stream_length=count)
    first = method.init(source, task)
    first = start(first) if start else first
    state, scores, states = first, [], []
    for inputs in steps:
        stepped = step(method, source, first if episodic else state, inputs)
        state = stepped.state
        scores.append(stepped.scores)
        states.append(state)
    return Course(torch.cat(scores), first, states)
