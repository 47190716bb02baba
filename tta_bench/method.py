# SPDX-License-Identifier: Apache-2.0
"""The contract of an adaptation method: explicit state, pure steps, a card of promises.

A method is a frozen dataclass of hyper-parameters. It never holds state, never sees a target label and draws
no random number outside `Method.draw`; the runner owns state, resets, clocks, seeds and labels.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from tta_bench.models.context import Context as Context
from tta_bench.models.source import SourceModel as SourceModel
from tta_bench.models.text import TextSide as TextSide
from tta_bench.prompts import DATASET

State = Any
"""A pytree whose leaves are all tensors; flags and counters are 0-d tensors."""

Need = Literal[
    "batchnorm", "text", "gradients", "features", "patch_features", "source_images", "source_labels",
    "source_replay", "reward", "stream_length", "attention", "class_token",
]  # fmt: skip
Reset = Literal["image", "batch", "shift", "never"]
Category = Literal["episodic", "online", "transductive"]
"""The images a prediction draws on besides the source model: its own image, what came before, or the other images of a
batch. Methods of different categories see different amounts of target data."""
Updates = Literal["parameters", "state", "inference"]
"""The tensors a step changes: those of the model or prompts by gradient, memories and statistics, or none."""


ALL_PRECISIONS = frozenset({"float64", "float32", "bfloat16"})
"""For the cards of methods that also work on a model whose products are rounded to bfloat16, under autocast."""


class Inputs(NamedTuple):
    """The inputs of one step; the leading axis is always N, also inside ``vmap`` (then N = 1).

    Attributes:
        images: (N, C, H, W) in [0, 1], of the source model's dtype and device; None for a method in feature space.
        views: (N, V, C, H, W), view 0 is the image; only if the card asks for views.
        features: (N, D) raw encoder output, not normalised; only if the card needs "features".
        view_features: (N, V, D); only if the card asks for views and needs "features".
        draws: What `Method.draw` returned: leaves (N, ...) per image, or (...) per step.
        source_images: (M, C, H, W) replay batch; only if the card needs "source_replay".
        source_labels: (M,) int64 of the source split; only if the card needs "source_labels".
    """

    images: Tensor | None
    views: Tensor | None = None
    features: Tensor | None = None
    view_features: Tensor | None = None
    draws: Any = None
    source_images: Tensor | None = None
    source_labels: Tensor | None = None


class SourceSplit(Protocol):
    """Labelled images that the source model was trained on, by random access."""

    def __len__(self) -> int:
        """Return the number of images."""

    def batch(self, index: int, size: int) -> tuple[Tensor, Tensor]:
        """Return images (M, C, H, W) in [0, 1] and labels (M,) of batch ``index``, wrapping at the end."""


class Task(NamedTuple):
    """The facts that `Method.init` may know of the stream.

    Attributes:
        num_classes: K, after the label mask.
        class_names: The K names.
        batch_size: As configured, not that of the last batch.
        stream_length: Images in the stream; only if the card needs "stream_length".
        source: The source split; only if the card needs it.
    """

    num_classes: int
    class_names: tuple[str, ...]
    batch_size: int
    stream_length: int | None = None
    source: SourceSplit | None = None


class Adapted(NamedTuple):
    """The result of one step.

    Attributes:
        state: The state after the step.
        logits: (N, K) if the step already predicted; then `Method.predict` is not called.
        teacher: (N, K) scores of the model that the method distils from, on the same images, where there is
            one; recorded beside every prediction.
    """

    state: State
    logits: Tensor | None = None
    teacher: Tensor | None = None


@dataclass(frozen=True)
class ViewPolicy:
    """The views that the runner makes of an image.

    Attributes:
        count: V, with the image itself as view 0.
        kind: What the others are: ``"crop"`` or ``"augmix"``.
    """

    count: int
    kind: str = "crop"


@dataclass(frozen=True)
class Card:
    """Facts that the harness needs before it runs a method; each flag is a promise that the checks test.

    Attributes:
        paper: Where the method is described, e.g. ``"arXiv:2006.10726"``.
        title: Title of the paper.
        authors: Its authors as BibTeX writes them, ``"Last, First and Last, First"``; empty for a baseline.
        venue: Where it appeared, without the year.
        year: When it appeared there; 0 for a baseline.
        category: How much target data a prediction may draw on, see `Category`.
        updates: What a step changes, see `Updates`.
        prompts: Prompt templates of its publication: a name that ``--prompts`` knows, or ``"dataset"`` for those of
            the dataset. A preset names others under the key ``"prompts"``.
        inputs: Whether it works on images or only on features; then it is given no images, and features are cached.
        needs: What it must be given; see `Need`.
        views: Views to make of each image.
        output: What the scores are.
        predicts: Which side of the update the prediction comes from.
        reset: Default reset rule.
        model: Default pocket model.
        independent: Adapting N images equals adapting each alone from the same state.
        vmappable: A step survives ``torch.func.vmap``.
        fixed_shapes: The state keeps its structure, shapes and dtypes.
        grows: Names of state leaves that may change along axis 0 where shapes are not fixed.
        precision: Floating types that the method is good for; "bfloat16" is float32 with products under autocast.
        draw_device: Where `Method.draw` makes its numbers.
        chunk: Images adapted at a time under an ``image`` reset, unless the command line says otherwise.
        idle: Hyper-parameters with which the method must predict what its source does; None: there are none.
        parity: Golden family and method name that stand for it, e.g. ``"online/tent"``.
        cost: Passes of one step in words, e.g. ``"1 forward + 1 backward"``: passes over one batch, a backward pass
            for every forward pass that is differentiated; empty where nobody counted.
        licence: SPDX identifier of this implementation.
        reference_licence: Licence of the authors' code, for information; empty where nobody looked it up.
        notes: What a user should know before reading a number.
    """

    paper: str
    title: str = ""
    authors: str = ""
    venue: str = ""
    year: int = 0
    category: Category = "online"
    updates: Updates = "parameters"
    prompts: str = DATASET
    inputs: Literal["images", "features"] = "images"
    needs: frozenset[Need] = frozenset()
    views: ViewPolicy | None = None
    output: Literal["logits", "probabilities", "votes"] = "logits"
    predicts: Literal["before", "after", "during"] = "after"
    reset: Reset = "shift"
    model: str = "pocket-bn"
    independent: bool = False
    vmappable: bool = False
    fixed_shapes: bool = True
    grows: tuple[str, ...] = ()
    precision: frozenset[str] = frozenset({"float64", "float32"})
    draw_device: Literal["cpu", "device"] = "cpu"
    chunk: int = 64
    idle: tuple[tuple[str, Any], ...] | None = None
    parity: str = ""
    cost: str = ""
    licence: str = "Apache-2.0"
    reference_licence: str = ""
    notes: str = ""

    @property
    def groups(self) -> frozenset[str]:
        """Return the names that lists and ``--method @NAME`` know the method's groups by."""
        of_needs = {"clip": "text" in self.needs, "forward-only": "gradients" not in self.needs}
        return frozenset({self.category, *(name for name, inside in of_needs.items() if inside)})


class Cost(NamedTuple):
    """The cost of one part of a step.

    Attributes:
        part: Its name.
        times: How often a step runs it.
        multiply_adds: Of one run, products alone, by formula; None where they depend on the data.
        moved_bytes: Of one run, through memory, where that is what bounds it.
        work: Runs it once, for a library to count; None where there is no product to count.
    """

    part: str
    times: int
    multiply_adds: int | None = None
    moved_bytes: int | None = None
    work: Callable[[], object] | None = None


class Method(ABC):
    """One adaptation rule: a frozen dataclass of hyper-parameters with a `Card`.

    `presets` holds hyper-parameters of the literature by name; the key ``"prompts"`` in one names its prompt templates.
    `one_image` says with which hyper-parameters a method of BatchNorm layers makes sense of one image at a time.
    """

    card: ClassVar[Card]
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    one_image: ClassVar[str] = ""

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the state before the first image; deterministic, and timed apart from the steps."""
        return {}

    def init_reads(self, available: int) -> int | None:
        """Return how many images of a source split of so many `init` reads, for its progress; None: not known."""
        return None

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Any:
        """Return all random numbers of one step over ``n`` images, or None.

        Args:
            source: The source model.
            n: 1 under an ``image`` reset (one call per image, leaves (1, ...), joined by the runner); else the
                number of images of the step.
            generator: On the CPU, or on the model's device where the card says so; the only source of
                randomness that a method may use.
        """
        return None

    def check_protocol(self, reset: str, batch_size: int) -> None:
        """Refuse a protocol under which a hyper-parameter has no effect, or values that no run can work with."""
        return

    def view_policy(self) -> ViewPolicy | None:
        """Return how many views of which kind the runner makes of each image; by default what the card says."""
        return self.card.views

    @abstractmethod
    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after one step; a deterministic function that writes to none of its arguments."""

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return scores (N, K); by default the logits under the adapted tensors ``state["params"]``."""
        assert inputs.images is not None
        return source.logits(inputs.images, state.get("params"))

    def adapted_tensors(self, source: SourceModel) -> tuple[str, ...]:
        """Return the names of the tensors that the method changes in this model, for the manifest."""
        return ()

    def notes(self, source: SourceModel) -> dict[str, str]:
        """Return choices that the method made by itself for this model, for the manifest."""
        return {}

    def sentences(self, source: SourceModel) -> tuple[str, ...]:
        """Return the sentences that the method encodes besides those of ``source.text.sentences``; by default none.

        They enter the protocol fact ``prompts``. ``{}`` stands for words that depend on the images.
        """
        return ()

    def costs(self, source: SourceModel, inputs: Inputs) -> tuple[Cost, ...]:
        """Return the parts of a step on these inputs, what each costs by formula, and how to run it alone."""
        return ()


class ScoringMethod(Method):
    """A method whose step parts in two: what the state becomes, and scores from what was seen on the way.

    Hyper-parameters named in ``scoring`` enter `score` alone. Methods that differ in nothing else share one pass
    over a stream: a sweep over them calls `observe` once and `score` once for each.
    """

    scoring: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def observe(self, source: SourceModel, state: State, inputs: Inputs) -> tuple[State, dict[str, Tensor]]:
        """Return the state after one step, and evidence: tensors by name with one row per image."""

    @abstractmethod
    def score(self, source: SourceModel, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the scores (N, K) that the evidence of a step stands for."""

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Observe a batch and score it; without gradients, which a method takes itself where it needs them."""
        with torch.no_grad():
            after, evidence = self.observe(source, state, inputs)
            return Adapted(after, self.score(source, evidence))


class ModuleMethod(Method):
    """A method written imperatively: a module, an optimiser, ``loss.backward(); optimizer.step()``.

    Every step works on a fresh copy into which the carried tensors are loaded, and hands new tensors back; so
    resets, snapshots and resume work as for any other method. The optimiser's own tensors appear at its first
    step, so the card must say ``fixed_shapes=False, grows=("optimizer",)``. Learning-rate schedules and other
    state outside module and optimiser do not survive a step. Not for ``vmap``.
    """

    @abstractmethod
    def build(self, source: SourceModel) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return a module of one's own, e.g. from ``source.module()``, and the optimiser over its parameters."""

    @abstractmethod
    def step(self, module: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor) -> Tensor:
        """Adapt the module in place to images (N, C, H, W) and return logits (N, K)."""

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the tensors of the module and of the optimiser as they are built."""
        return _snapshot(*self.build(source))

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Load the state into a fresh copy, take the step there, and return the new tensors."""
        assert inputs.images is not None
        module, optimizer = self.build(source)
        module.load_state_dict(state["module"])
        if state["optimizer"]:
            groups = optimizer.state_dict()["param_groups"]
            kept = {int(index): dict(entry) for index, entry in state["optimizer"].items()}
            optimizer.load_state_dict({"state": copy.deepcopy(kept), "param_groups": groups})
        with torch.enable_grad():
            logits = self.step(module, optimizer, inputs.images)
        return Adapted(_snapshot(module, optimizer), logits.detach())


def _snapshot(module: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}
    moments = {
        str(index): {key: torch.as_tensor(value).clone() for key, value in entry.items() if value is not None}
        for index, entry in optimizer.state_dict()["state"].items()
    }
    return {"module": tensors, "optimizer": moments}
