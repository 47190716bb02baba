# SPDX-License-Identifier: Apache-2.0
"""Two right methods, and some that break one promise; ``breaks`` names the checks, ``says`` what they report."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from tta_bench.method import Adapted, Card, Inputs, Method, SourceModel, State, Task

ONLINE = Card(paper="none", needs=frozenset({"batchnorm"}), vmappable=True, idle=(("strength", 0.0),))
SERIAL = replace(ONLINE, vmappable=False)
SINGLE = Card(paper="none", reset="image", independent=True, vmappable=True)


class OnlineRule(Method):
    """Subtract a moving average of the logits: a correct method that carries a state."""

    card: ClassVar[Card] = ONLINE
    breaks: ClassVar[set[str]] = set()
    says: ClassVar[str] = ""
    strength: float

    def init(self, source: SourceModel, task: Task) -> State:
        zeros = torch.zeros(task.num_classes, dtype=source.dtype, device=source.device)
        return {"mean": zeros, "seen": torch.zeros((), dtype=torch.int64)}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        mean = 0.9 * state["mean"] + 0.1 * self.logits(source, inputs).mean(0)
        return Adapted({**state, "mean": mean, "seen": state["seen"] + 1})

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        return self.logits(source, inputs) - self.strength * state["mean"]

    def logits(self, source: SourceModel, inputs: Inputs) -> Tensor:
        assert inputs.images is not None
        return source.logits(inputs.images)


@dataclass(frozen=True)
class Online(OnlineRule):
    """Keep every promise of an online method."""

    strength: float = 0.5


@dataclass(frozen=True)
class Single(Method):
    """Keep every promise of a method whose episodes are single images: add a little drawn noise."""

    noise: float = 0.1

    card: ClassVar[Card] = SINGLE
    breaks: ClassVar[set[str]] = set()
    says: ClassVar[str] = ""

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Any:
        return torch.randn(n, source.num_classes, generator=generator)

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        assert inputs.images is not None
        logits = source.logits(inputs.images)
        return Adapted(state, logits + self.noise * inputs.draws.to(logits.dtype))


@dataclass
class Unfrozen(OnlineRule):
    """Can be changed while it runs."""

    breaks = {"hyper_parameters_survive"}
    says = "can be changed"
    strength: float = 0.5


@dataclass(frozen=True)
class Forgetful(OnlineRule):
    """Lose a hyper-parameter when it is built again."""

    breaks = {"hyper_parameters_survive"}
    says = "not equal"
    strength: float = 0.5
    salt: int = field(default_factory=itertools.count().__next__, init=False)


@dataclass(frozen=True)
class Undescribed(Online):
    """Say nothing about the paper."""

    breaks = {"card_complete"}
    says = "card.paper must say where"
    card = replace(ONLINE, paper="")


@dataclass(frozen=True)
class Impossible(Online):
    """Ask for something that no runner has."""

    breaks = {"card_complete"}
    says = "card.needs must be among"
    card = replace(ONLINE, needs=frozenset({"answers"}))


@dataclass(frozen=True)
class ExtraArgument(Online):
    """Take a further argument, which could be anything."""

    breaks = {"labels_unreachable"}
    says = "adapt takes self, source, state, inputs, labels"

    def adapt(self, source: SourceModel, state: State, inputs: Inputs, labels: Any = None) -> Adapted:  # type: ignore[override]
        return super().adapt(source, state, inputs)


def _closing_over(labels: Tensor) -> type[Online]:
    @dataclass(frozen=True)
    class Peeking(Online):
        """Know the labels through a closure."""

        breaks = {"labels_unreachable"}
        says = "closes over a Tensor"

        def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
            return super().predict(source, state, inputs) + 0 * labels.sum()

    return Peeking


Peeking = _closing_over(torch.zeros(5))


@dataclass(frozen=True)
class Homeless(Online):
    """Need BatchNorm, but name a default model that has none."""

    breaks = {"needs_are_met"}
    says = "pocket-gn, which has no batchnorm"
    card = replace(ONLINE, model="pocket-gn")


@dataclass(frozen=True)
class Greedy(Online):
    """Use features without asking for them."""

    breaks = {"needs_are_honoured"}
    says = "does not ask for"

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        return super().predict(source, state, inputs) + (inputs.features is not None)


@dataclass(frozen=True)
class Dated(Online):
    """Put the time into the initial state."""

    breaks = {"init_is_deterministic", "replay_is_equal", "reset_is_fresh"}
    says = "['born'] differs between two calls of init"

    def init(self, source: SourceModel, task: Task) -> State:
        return {**super().init(source, task), "born": torch.tensor(time.perf_counter_ns())}


@dataclass(frozen=True)
class WritesState(Online):
    """Move the average in place."""

    breaks = {"adapt_writes_to_nothing", "reset_is_fresh"}
    says = "['mean'] differs after a step"
    card = SERIAL

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        state["mean"].copy_(super().adapt(source, state, inputs).state["mean"])
        return Adapted(state)


@dataclass(frozen=True)
class WritesImages(Online):
    """Darken the images in place."""

    breaks = {"adapt_writes_to_nothing", "needs_are_honoured"}
    says = "images differs after a step"
    card = replace(SERIAL, idle=None)

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        assert inputs.images is not None
        inputs.images.mul_(0.5)
        return super().adapt(source, state, inputs)


@dataclass(frozen=True)
class WritesModel(Online):
    """Move the source model's weights in place."""

    breaks = {
        "adapt_writes_to_nothing",
        "grad_mode_is_left",
        "needs_are_honoured",
        "reset_is_fresh",
        "state_can_be_saved",
    }
    says = "the source model's ['params']"
    card = replace(SERIAL, idle=None)

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        next(p for name, p in source.params.items() if p.ndim == 4).mul_(1.01)
        return super().adapt(source, state, inputs)


@dataclass(frozen=True)
class Hoarder(Online):
    """Count the steps on the instance."""

    breaks = {"nothing_is_stored"}
    says = "self.steps changed"

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        object.__setattr__(self, "steps", getattr(self, "steps", 0) + 1)
        return super().adapt(source, state, inputs)


@dataclass(frozen=True)
class ClassHoarder(Online):
    """Remember the steps on the class."""

    breaks = {"nothing_is_stored"}
    says = "ClassHoarder.sizes changed"
    sizes: ClassVar[list[int]] = []

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        assert inputs.images is not None
        self.sizes.append(len(inputs.images))
        return super().adapt(source, state, inputs)


CALLS = itertools.count()


@dataclass(frozen=True)
class Drifting(Online):
    """Predict something else at each call."""

    breaks = {
        "predict_repeats", "replay_is_equal", "reset_is_fresh", "needs_are_honoured", "grad_mode_is_left",
        "idle_is_the_source", "device_equals_cpu",
    }  # fmt: skip
    says = "two calls of predict differ"
    card = SERIAL

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        logits = super().predict(source, state, inputs)
        return logits * (1 + 1e-2 * next(CALLS))


@dataclass(frozen=True)
class Random(Online):
    """Add noise from the global generator."""

    breaks = {
        "predict_repeats", "replay_is_equal", "reset_is_fresh", "needs_are_honoured", "grad_mode_is_left",
        "globals_are_left", "vmap_equals_loop", "idle_is_the_source", "device_equals_cpu",
    }  # fmt: skip
    says = "torch's random state changed"

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        logits = super().predict(source, state, inputs)
        return logits + torch.randn_like(logits)


MEMORY: list[Tensor] = []


@dataclass(frozen=True)
class Remembering(Online):
    """Remember the first images of the process in a global list."""

    breaks = {
        "reset_is_fresh", "replay_is_equal", "needs_are_honoured", "grad_mode_is_left", "state_can_be_saved",
        "device_equals_cpu",
    }  # fmt: skip
    says = "after a reset"
    card = replace(SERIAL, idle=None)

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        adapted = super().adapt(source, state, inputs)
        MEMORY.append(adapted.state["mean"])
        seen = torch.stack([m.to(source.dtype) for m in MEMORY])
        return Adapted({**adapted.state, "mean": seen.mean(0)})


@dataclass(frozen=True)
class CountsInPython(Online):
    """Keep a Python number in the state."""

    breaks = {"state_is_tensors", "state_can_be_saved"}
    says = "['seen'] of the state is a int"
    card = SERIAL

    def init(self, source: SourceModel, task: Task) -> State:
        return {**super().init(source, task), "seen": 0}


@dataclass(frozen=True)
class Growing(Online):
    """Keep all logits without saying that the state grows."""

    breaks = {"state_keeps_its_shape"}
    says = "['all'] of the state went from (0, 5) to (4, 5)"

    def init(self, source: SourceModel, task: Task) -> State:
        none = torch.zeros(0, task.num_classes, dtype=source.dtype, device=source.device)
        return {**super().init(source, task), "all": none}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        kept = torch.cat([state["all"], self.logits(source, inputs)])
        return Adapted({**super().adapt(source, state, inputs).state, "all": kept})


KNOWN: list[Tensor] = []


@dataclass(frozen=True)
class KnowsItsTensors(Online):
    """Recognise its own tensors, so that a state read from a file is a stranger."""

    breaks = {"state_can_be_saved"}
    says = "differs after saving and loading"
    card = SERIAL

    def init(self, source: SourceModel, task: Task) -> State:
        return self._known(super().init(source, task))

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        stranger = not any(state["mean"] is tensor for tensor in KNOWN)
        after = super().adapt(source, state, inputs).state
        return Adapted(self._known({**after, "mean": after["mean"] + stranger}))

    def _known(self, state: State) -> State:
        KNOWN.append(state["mean"])
        return state
