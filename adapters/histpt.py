# SPDX-License-Identifier: Apache-2.0
"""HisTPT: tune the prompt over a stream on pseudo-labels of remembered class features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.losses import entropy, most_confident
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State, Task, ViewPolicy
from tta_bench.optim import Optimizer, Tensors

from ._texts import text_side
from ._view_tuning import NEEDS, PromptTuning, Seen, Tuned, one_by_one


class Remembered(NamedTuple):
    """The results for one image: the state after it, its logits (1, K) and the course of its tuning."""

    state: State
    logits: Tensor
    tuned: Tuned


@dataclass(frozen=True)
class HisTpt(PromptTuning):
    """Tune the prompt on pseudo-labels by three banks of earlier class features, each weighed by its certainty.

    ``y = sum_b w_b softmax(s x_0 . unit(mean of bank b))`` with ``w = softmax(-H_b)`` over a global, a local and a
    hard bank; ``loss = mean_{v in S} CE(y, l_v)``. The local bank holds the last class features, the hard one means
    of those with the largest entropies, the global one is a moving average. The context is carried on.

    Source: Zhang et al., NeurIPS 2024, arXiv:2410.20346, for classification as TTABC has it.
    Differs: the authors' own code segments images and has a context for each class; the pseudo-label is a mean of
        probabilities; the images of a batch are taken one after the other.

    Attributes:
        memory: Slots of the local and the hard bank.
        hard: How many local slots, those of the largest entropies, a hard slot is the mean of.
        keep: Share that the global features keep at each image.
        reset_prompt: Whether context and optimiser restart with every image, while the banks stay.
    """

    optimizer: Optimizer = "sgd"
    weight_decay: float = 1e-4
    views: int = 1
    memory: int = 32
    hard: int = 16
    keep: float = 0.99
    reset_prompt: bool = False

    card: ClassVar[Card] = Card(
        paper="arXiv:2410.20346",
        title="Historical Test-time Prompt Tuning for Vision Foundation Models",
        authors="Zhang, Jingyi and Huang, Jiaxing and Zhang, Xiaoqin and Shao, Ling and Lu, Shijian",
        venue="Advances in Neural Information Processing Systems",
        year=2024,
        category="online",
        updates="parameters",
        prompts="single",
        inputs="features",
        needs=NEEDS,
        views=ViewPolicy(1, "crop"),
        reset="shift",
        model="pocket-clip",
        precision=ALL_PRECISIONS,
        parity="vlm/histpt",
        reference_licence="none stated",
        cost="1 forward; text tower, over all classes: 2 forward + 1 backward",
        notes="The first pseudo-label is the model's own prediction, and nothing is reset: watch for collapse.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "single": {"views": 1},
        "multiview": {"views": 64, "selection": 0.1},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if not 1 <= self.hard <= self.memory or not 0 <= self.keep <= 1:
            raise BadInputError(
                "hard must lie between 1 and memory and keep in [0, 1], got "
                f"{self.hard}, {self.memory} and {self.keep}"
            )

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the context, the optimiser's state and empty banks."""
        bank = source.head_weight().new_zeros(self.memory, source.num_classes, source.dim)
        return {
            **self.initial_state(source), "local": bank, "hard": bank.clone(), "global": bank[0].clone(),
            "entropies": bank.new_zeros(self.memory),
            "filled": torch.zeros((), dtype=torch.bool, device=bank.device),
        }  # fmt: skip

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after the images of a batch, one after the other, with their logits."""
        logits = []
        for one in one_by_one(inputs):
            after = self.remember(source, state, one)
            state = after.state
            logits.append(after.logits)
        return Adapted(state, torch.cat(logits))

    def remember(self, source: SourceModel, state: State, one: Inputs) -> Remembered:
        """Tune on one image, put its class features into the banks, and predict it."""
        assert one.features is not None
        start = {**state, **self.initial_state(source)} if self.reset_prompt else state
        tuned = self.tune(source, start, one)
        with torch.no_grad():
            text = self.texts(source, tuned.state["params"])
            banks = self._stored(state, text, tuned.extra["entropy"])
            return Remembered({**tuned.state, **banks}, text_side(source).logits(one.features, text), tuned)

    def choose(self, logits: Tensor, before: Seen | None) -> Tensor:
        """Return the confident views (1, k), chosen again in each step."""
        return most_confident(logits, self.selection)

    def gather(
        self, source: SourceModel, state: State, inputs: Inputs, seen: Seen, before: Seen | None
    ) -> Tensors:
        """Return the pseudo-label (K,), the weights (3,) of the banks, and the entropy at the first step."""
        assert inputs.features is not None
        banks = (state["global"], state["local"].mean(0), state["hard"].mean(0))
        texts = [torch.where(state["filled"], F.normalize(bank, dim=-1), seen.text) for bank in banks]
        logits = torch.cat([text_side(source).logits(inputs.features, text) for text in texts])
        weights = (-entropy(logits)).softmax(0)
        certainty = entropy(seen.confident).mean() if before is None else before.extra["entropy"]
        return {"pseudo": weights @ logits.softmax(-1), "weights": weights, "entropy": certainty}

    def loss(self, seen: Seen) -> Tensor:
        """Return the mean cross-entropy of the chosen views with the pseudo-label."""
        return -(seen.extra["pseudo"] * seen.confident.log_softmax(-1)).sum(-1).mean()

    def _stored(self, state: State, text: Tensor, certainty: Tensor) -> State:
        """Return the banks with the class features (K, D) of an image; the first image fills them."""
        first = ~state["filled"]
        local = torch.cat([text[None], state["local"][:-1]])
        local = torch.where(first, text.expand_as(local), local)
        entropies = torch.cat([certainty[None], state["entropies"][:-1]])
        entropies = torch.where(first, certainty.expand_as(entropies), entropies)
        hardest = local[entropies.argsort(descending=True, stable=True)[: self.hard]].mean(0)
        hard = torch.where(first, local, torch.cat([hardest[None], state["hard"][:-1]]))
        both = 0.5 * (local.mean(0) + hard.mean(0))
        average = torch.where(first, text, self.keep * state["global"] + (1 - self.keep) * both)
        return {
            "local": local, "hard": hard, "global": average, "entropies": entropies,
            "filled": torch.ones_like(state["filled"]),
        }  # fmt: skip
