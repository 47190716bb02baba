# SPDX-License-Identifier: Apache-2.0
"""Methods that each break one promise about their state, scores, surroundings or draws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, ScoringMethod, SourceModel, State, Task
from tta_bench.registry import load_file

RIGHT = load_file(Path(__file__).with_name("broken_methods.py"))
Online, Single = RIGHT.Online, RIGHT.Single
ONLINE, SERIAL = RIGHT.ONLINE, RIGHT.SERIAL


@dataclass(frozen=True)
class Aliasing(Online):
    """Hand the source model's own tensor back as a part of the state."""

    breaks = {"source_memory_stays_out"}
    says = "['anchor'] of the new state is the source model's memory"

    def init(self, source: SourceModel, task: Task) -> State:
        return {**super().init(source, task), "anchor": next(iter(source.params.values())).clone()}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        after = super().adapt(source, state, inputs).state
        return Adapted({**after, "anchor": next(iter(source.params.values()))})


@dataclass(frozen=True)
class KeepsGraph(Online):
    """Leave the average attached to a leaf."""

    breaks = {"no_graph_is_left"}
    says = "['mean'] of what adapt returned carries a gradient graph"
    card = SERIAL

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        after = super().adapt(source, state, inputs).state
        return Adapted({**after, "mean": after["mean"] * torch.ones((), requires_grad=True)})


@dataclass(frozen=True)
class SinglePrecision(Online):
    """Give float32 whatever the model is in."""

    breaks = {"precision_is_kept"}
    says = "scores are torch.float32 on tiny-batch in float64"
    card = replace(SERIAL, idle=None)

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        return super().predict(source, state, inputs).float()


@dataclass(frozen=True)
class Mislabelled(Online):
    """Call logits probabilities."""

    breaks = {"scores_are_scores"}
    says = "probabilities must not be negative"
    card = replace(ONLINE, output="probabilities", idle=None)


@dataclass(frozen=True)
class Transposed(Online):
    """Give scores the wrong way round; most checks need scores of the right shape."""

    says = "must give scores of shape (4, 5), got (5, 4)"
    card = replace(SERIAL, idle=None)
    breaks = {
        "scores_are_scores", "replay_is_equal", "reset_is_fresh", "needs_are_honoured", "nothing_is_stored",
        "precision_is_kept", "one_image_works", "smaller_last_batch_works", "identical_images_work",
        "globals_are_left", "grad_mode_is_left", "device_equals_cpu",
    }  # fmt: skip

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        return super().predict(source, state, inputs).T


@dataclass(frozen=True)
class Branching(Online):
    """Branch on a value although it says that it survives vmap."""

    breaks = {"vmap_equals_loop"}
    says = "vmap"

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        after = super().adapt(source, state, inputs)
        return after if float(after.state["mean"].sum()) > 0 else Adapted(dict(after.state))


@dataclass(frozen=True)
class Leaning(Single):
    """Subtract the batch's mean although it says that images are independent."""

    breaks = {"batch_equals_loop"}
    says = "the batch differs from a loop"

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        logits = super().adapt(source, state, inputs).logits
        assert logits is not None
        return Adapted(state, logits - logits.mean(0))


@dataclass(frozen=True)
class Ordered(Single):
    """Score an image by its place in the batch."""

    breaks = {"batch_equals_loop", "order_does_not_matter"}
    says = "scores of a reversed batch differ"

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        logits = super().adapt(source, state, inputs).logits
        assert logits is not None
        place = torch.arange(len(logits), device=logits.device)
        return Adapted(state, logits + place[:, None] * logits.sign())


@dataclass(frozen=True)
class NeedsCompany(Online):
    """Add the unbiased spread of the batch, which one image does not have."""

    breaks = {"one_image_works"}
    says = "not finite"
    card = replace(SERIAL, idle=None)

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        logits = super().predict(source, state, inputs)
        first = logits[:, :1]
        return logits + (first - first.mean()).square().sum() / (len(logits) - 1)


@dataclass(frozen=True)
class EvenOnly(Online):
    """Pair the images up, which an odd batch does not allow."""

    breaks = {"smaller_last_batch_works", "one_image_works"}
    says = "smaller"
    card = SERIAL

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        logits = super().predict(source, state, inputs)
        if len(logits) % 2:
            raise ValueError("this method was handed a smaller batch than it can pair up")
        return logits


@dataclass(frozen=True)
class Whitening(Online):
    """Divide by the spread of the batch, which identical images do not have."""

    breaks = {"identical_images_work", "one_image_works"}
    says = "not finite"
    card = replace(SERIAL, idle=None)

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        logits = super().predict(source, state, inputs)
        assert inputs.images is not None
        spread = (inputs.images - inputs.images[:1]).abs().amax()
        return logits / spread


@dataclass(frozen=True)
class Scaling(Online):
    """Predict before the update, which scales by the range over the batch that identical images do not have."""

    breaks = {"identical_images_work"}
    says = "['mean'] of the state is NaN"
    card = replace(SERIAL, idle=None)

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        assert inputs.images is not None
        logits = self.logits(source, inputs)
        apart = logits - logits.amin(0)
        scaled = logits if len(logits) == 1 else apart / apart.amax(0)
        return Adapted({**state, "mean": state["mean"] + scaled.mean(0)}, logits - state["mean"])


@dataclass(frozen=True)
class Sulking(Online):
    """Give no finite scores for the batch after one of identical images."""

    breaks = {"identical_images_work"}
    says = "scores are not finite"
    card = replace(SERIAL, idle=None)

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        assert inputs.images is not None
        after = super().adapt(source, state, inputs).state
        same = len(inputs.images) > 1 and bool((inputs.images == inputs.images[:1]).all())
        scores = self.logits(source, inputs) / (1 - state["seen"])
        return Adapted({**after, "seen": torch.full_like(state["seen"], same)}, scores)


@dataclass(frozen=True)
class Restless(Online):
    """Predict something else than the source model with the hyper-parameters that it calls idle."""

    breaks = {"idle_is_the_source"}
    says = "idle probabilities differ"
    card = replace(ONLINE, idle=(("strength", 0.2),))


@dataclass(frozen=True)
class RoundsTwice(Online):
    """Round the scores to one decimal where products are rounded."""

    breaks = {"idle_is_the_source"}
    says = "on tiny-batch in bfloat16"
    card = replace(ONLINE, precision=ALL_PRECISIONS)

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        logits = super().predict(source, state, inputs)
        return logits if source.autocast is None else logits.round(decimals=1)


@dataclass(frozen=True)
class Seeding(Online):
    """Seed the global generator."""

    breaks = {"globals_are_left"}
    says = "torch's random state changed"

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        torch.manual_seed(3)
        return super().adapt(source, state, inputs)


@dataclass(frozen=True)
class Tuning(Online):
    """Switch a backend flag."""

    breaks = {"globals_are_left"}
    says = "torch.backends.cudnn.benchmark changed"

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        torch.backends.cudnn.benchmark = True
        return super().adapt(source, state, inputs)


@dataclass(frozen=True)
class SwitchesGradients(Online):
    """Switch gradients off and leave them so."""

    breaks = {"grad_mode_is_left"}
    says = "gradients were switched off"

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        torch.set_grad_enabled(False)
        return super().adapt(source, state, inputs)


@dataclass(frozen=True)
class DrawsGlobally(Single):
    """Draw from the global generator."""

    breaks = {
        "draws_come_from_the_generator", "replay_is_equal", "reset_is_fresh", "grad_mode_is_left",
        "globals_are_left", "state_can_be_saved", "device_equals_cpu",
    }  # fmt: skip
    says = "the draws' the whole differs between equal generators"

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Any:
        return torch.randn(n, source.num_classes)


@dataclass(frozen=True)
class DrawsOnce(Single):
    """Draw the same numbers at every call."""

    breaks = {"draws_vary"}
    says = "are all equal"

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Any:
        return torch.randn(n, source.num_classes, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Leaking(ScoringMethod):
    """Declare a hyper-parameter as scoring that enters the state."""

    weight: float = 0.5

    card = Card(paper="none", predicts="before")
    scoring = frozenset({"weight"})
    breaks = {"scoring_is_apart"}
    says = "with another weight, which is declared as scoring"

    def init(self, source: SourceModel, task: Task) -> State:
        return {"mean": torch.zeros(source.num_classes, dtype=source.dtype, device=source.device)}

    def observe(self, source: SourceModel, state: State, inputs: Inputs) -> tuple[State, dict[str, Tensor]]:
        logits = source.logits(inputs.images)
        return {"mean": state["mean"] + self.weight * logits.mean(0)}, {"logits": logits}

    def score(self, source: SourceModel, evidence: Any) -> Tensor:
        return evidence["logits"]


@dataclass(frozen=True)
class OwnSentences(Single):
    """Encode a sentence of its own and name it."""

    card = replace(RIGHT.SINGLE, needs=frozenset({"text"}), model="pocket-clip")
    sentence: str = "a cartoon of nothing."

    def sentences(self, source: SourceModel) -> tuple[str, ...]:
        return (self.sentence,)

    def init(self, source: SourceModel, task: Task) -> State:
        assert source.text is not None
        return {"text": source.text.features([self.sentence])}


@dataclass(frozen=True)
class SecretSentence(OwnSentences):
    """Encode a sentence that the record does not have."""

    breaks = {"sentences_are_named"}
    says = "'a cartoon of nothing.' was encoded"

    def sentences(self, source: SourceModel) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True)
class ForgetsTheDevice(Online):
    """Make a tensor on the CPU inside adapt, wherever the model is."""

    breaks = {"device_equals_cpu"}
    says = (
        "at least two devices, cuda:0 and cpu! (aten.mul, in which a tensor of shape (5,) is on cpu) (broken"
    )

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        after = super().adapt(source, state, inputs).state
        return Adapted({**after, "mean": after["mean"] * torch.ones(source.num_classes, dtype=source.dtype)})


@dataclass(frozen=True)
class ScoresOnTheCPU(Online):
    """Hand the scores back on the CPU."""

    breaks = {"device_equals_cpu"}
    says = "scores lie on cpu, and the model on cuda:0"

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        return super().predict(source, state, inputs).cpu()


@dataclass(frozen=True)
class LeavesTheDevice(Online):
    """Bring a part of the state to the CPU at the first step."""

    breaks = {"device_equals_cpu"}
    says = "['last'] of the state went from cuda:0 to cpu"

    def init(self, source: SourceModel, task: Task) -> State:
        return {
            **super().init(source, task),
            "last": torch.zeros(5, dtype=source.dtype, device=source.device),
        }

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        after = super().adapt(source, state, inputs).state
        return Adapted({**after, "last": after["mean"].cpu()})


@dataclass(frozen=True)
class Favouring(Online):
    """Give the first class more where the model is not on the CPU."""

    breaks = {"device_equals_cpu"}
    says = "scores on a CUDA device differ from those on the CPU"

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        return super().predict(source, state, inputs) + (source.device.type != "cpu")
