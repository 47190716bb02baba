# SPDX-License-Identifier: Apache-2.0
"""The mechanism of test-time prompt tuning: views of one image, a choice of confident ones, steps on a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.losses import chosen_views, marginal_entropy, most_confident
from tta_bench.method import Adapted, Context, Inputs, Need, SourceModel, State, ViewPolicy
from tta_bench.optim import Optimizer, Tensors, gradient

from ._descent import Descending
from ._texts import text_side

NEEDS: frozenset[Need] = frozenset({"text", "features", "gradients"})
"""The needs of a method that tunes the text side on view features."""


class Seen(NamedTuple):
    """The outputs of one forward pass under the current tensors.

    Attributes:
        logits: (N, V, K) of the views.
        text: (K, D) unit class features.
        chosen: (N, k) the views that the loss is taken over.
        extra: What else a method found, by name.
    """

    logits: Tensor
    text: Tensor
    chosen: Tensor
    extra: Tensors

    @property
    def confident(self) -> Tensor:
        """The logits (N, k, K) of the chosen views."""
        return chosen_views(self.logits, self.chosen)


class Tuned(NamedTuple):
    """The results of the steps on one batch.

    Attributes:
        state: After the last step.
        losses: (steps,) before each step.
        grads: Of the last step, by name.
        chosen: (N, k) the views of the last step.
        extra: What the method found in the last step, by name.
    """

    state: State
    losses: Tensor
    grads: Tensors
    chosen: Tensor
    extra: Tensors


Objective = Callable[[Seen], Tensor]


@dataclass(frozen=True)
class ViewTuning(Descending):
    """Follow a loss over the confident views of an image; methods say which tensors, and on which loss.

    Attributes:
        views: Views of each image, the image itself among them.
        augmentation: How the other views are made: ``"crop"`` or ``"augmix"``.
        selection: Share of the views, those of least entropy, that the loss is taken over; one view at least.
        steps: Updates for each image.
    """

    lr: float = 5e-3
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.01
    views: int = 64
    augmentation: Literal["crop", "augmix"] = "crop"
    selection: float = 0.1
    steps: int = 1

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.views < 1 or self.steps < 1 or not 0 < self.selection <= 1:
            raise BadInputError(
                "views and steps must be 1 or more and selection lie in (0, 1], got "
                f"{self.views}, {self.steps} and {self.selection}"
            )
        if self.augmentation not in ("crop", "augmix"):
            raise BadInputError(f"augmentation must be 'crop' or 'augmix', got {self.augmentation!r}")

    def view_policy(self) -> ViewPolicy | None:
        """Return how many views of which kind are made."""
        return ViewPolicy(self.views, self.augmentation)

    def look(
        self, source: SourceModel, state: State, params: Tensors, inputs: Inputs, before: Seen | None
    ) -> Seen:
        """Return what the tensors make of the views; the choice of views is left to `choose` where it is empty.

        The image features stand; only the class features depend on the tensors.

        Args:
            source: The source model.
            state: The state before the step.
            params: The tensors to differentiate by.
            inputs: The batch.
            before: What the step before saw.
        """
        text = self.texts(source, params)
        logits = text_side(source).logits(rows(inputs), text)
        return Seen(logits, text, logits.new_zeros(0, dtype=torch.int64), {})

    def texts(self, source: SourceModel, params: Tensors) -> Tensor:
        """Return the unit class features (K, D) under the tensors."""
        raise NotImplementedError

    def choose(self, logits: Tensor, before: Seen | None) -> Tensor:
        """Return the views (N, k) that the loss is taken over: the confident ones of the first step."""
        return most_confident(logits, self.selection) if before is None else before.chosen

    def gather(
        self, source: SourceModel, state: State, inputs: Inputs, seen: Seen, before: Seen | None
    ) -> Tensors:
        """Return what the loss needs besides, without gradient; ``before`` is what the step before saw."""
        return {}

    def objectives(self, source: SourceModel, inputs: Inputs) -> Sequence[Objective]:
        """Return the losses of one step, each followed by an update."""
        return (self.loss,)

    def loss(self, seen: Seen) -> Tensor:
        """Return the entropy of the mean prediction over the chosen views, in the mean over images."""
        return marginal_entropy(seen.confident).mean()

    def tune(self, source: SourceModel, state: State, inputs: Inputs) -> Tuned:
        """Take the steps on a batch; over several images at once the loss is their mean."""
        losses: list[Tensor] = []
        before: Seen | None = None
        for _ in range(self.steps):
            for objective in self.objectives(source, inputs):
                start, last = state, before

                def loss(
                    params: Tensors,
                    objective: Objective = objective,
                    last: Seen | None = last,
                    start: State = start,
                ) -> tuple[Tensor, Seen]:
                    seen = self.look(source, start, params, inputs, last)
                    with torch.no_grad():
                        if not seen.chosen.numel():
                            seen = seen._replace(chosen=self.choose(seen.logits.detach(), last))
                        found = self.gather(source, start, inputs, seen, last)
                        seen = seen._replace(extra={**seen.extra, **found})
                    return objective(seen), seen

                grads, value, before = gradient(loss, state["params"])
                state = self.moved(state, grads)
                losses.append(value)
        assert before is not None
        return Tuned(state, torch.stack(losses), grads, before.chosen, before.extra)

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after the steps."""
        return Adapted(self.tune(source, state, inputs).state)

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return the logits (N, K) of the images under the tuned tensors."""
        assert inputs.features is not None
        return text_side(source).logits(inputs.features, self.texts(source, state["params"]))


@dataclass(frozen=True)
class PromptTuning(ViewTuning):
    """Tune the context in front of the class names, shared by all classes.

    Attributes:
        context: The words that the context starts as.
    """

    context: str = "a photo of a"

    def tensors(self, source: SourceModel) -> Tensors:
        """Return the context (n, W) that tuning starts from."""
        return {"ctx": self.prompts(source).ctx}

    def prompts(self, source: SourceModel) -> Context:
        """Return the class prompts."""
        return text_side(source).context(self.context)

    def sentences(self, source: SourceModel) -> tuple[str, ...]:
        """Return the class prompts that the context starts as."""
        return self.prompts(source).sentences

    def texts(self, source: SourceModel, params: Tensors) -> Tensor:
        """Return the unit class features (K, D) under a context."""
        return F.normalize(self.prompts(source).encode(params["ctx"]), dim=-1)


@dataclass(frozen=True)
class CalibratedTuning(PromptTuning):
    """Tune the context on the marginal entropy with a term on the class features that keeps them apart.

    Attributes:
        weight: Of the term.
        two_step: Whether the term has an update of its own after that on the entropy.
    """

    weight: float = 1.0
    two_step: bool = False

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if not math.isfinite(self.weight):
            raise BadInputError(f"weight must be a finite number, got {self.weight}")

    def objectives(self, source: SourceModel, inputs: Inputs) -> Sequence[Objective]:
        """Return the joint loss, or entropy and term one after the other."""
        if self.two_step:
            return (self.loss, self.spread)
        return (lambda seen: self.loss(seen) + self.spread(seen),)

    def spread(self, seen: Seen) -> Tensor:
        """Return the weighted term on the class features."""
        raise NotImplementedError


def rows(inputs: Inputs) -> Tensor:
    """Return the raw features (N, V, D) of the views."""
    assert inputs.view_features is not None
    return inputs.view_features


def one_by_one(inputs: Inputs) -> Iterator[Inputs]:
    """Yield the features of a batch image by image, for methods that carry something from each to the next."""
    features, views = inputs.features, rows(inputs)
    assert features is not None
    for one, seen in zip(torch.split(features, 1), torch.split(views, 1), strict=True):
        yield Inputs(images=None, features=one, view_features=seen)
