# SPDX-License-Identifier: Apache-2.0
"""Two caches of test features, of confident and of doubtful images: what TDA and BoostAdapter share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.method import Inputs, SourceModel, State, Task

from ._bank import Bank, Rule, by_entropy, empty
from ._matching import Chosen, Consensus, Matching, confident, consensus, entropies, text_scale
from ._ranges import positive, within

PAIRS: dict[str, tuple[float, float]] = {
    "caltech101": (5.0, 5.0), "dtd": (2.0, 3.0), "eurosat": (4.0, 8.0), "fgvc-aircraft": (2.0, 2.0),
    "food101": (1.0, 1.0), "imagenet": (2.0, 5.0), "imagenet-a": (2.0, 5.0), "imagenet-r": (1.0, 8.0),
    "imagenet-sketch": (2.363, 7.45), "imagenet-v2": (1.0, 8.0), "flowers102": (1.0, 5.0),
    "oxford-pets": (2.0, 7.0), "stanford-cars": (1.0, 7.0), "sun397": (2.0, 3.0), "ucf101": (3.0, 8.0),
}  # fmt: skip
"""Published ``alpha`` and ``beta`` by dataset; they were chosen on the test sets."""


def between(p: Tensor, low: float, high: float) -> Tensor:
    """Return 1 where ``low < p < high`` and 0 elsewhere, of values of 0 or more.

    Arithmetic is several times as fast as comparisons here, and few probabilities reach the usual upper end, 1.
    """
    if low < 0 or not p.numel() or bool(p.max() >= high):
        return ((low < p) & (p < high)).to(p.dtype)
    return F.threshold(p, low, 0.0).sign_()


@dataclass(frozen=True)
class Caching(Matching):
    """Add to the zero-shot logits what two caches of features say.

    Attributes:
        alpha: Weight of the positive cache.
        beta: Sharpness of its affinities.
        capacity: Features of each class in it.
        negative_alpha: Weight of the negative cache.
        negative_beta: Sharpness of its affinities.
        negative_capacity: Features of each class in it.
        entropy_band: Only images between these entropies enter it; nats over ``log2(K)``, so that 0.693 is the largest.
        mask_band: Its items speak against the classes whose stored probability lies between these.
        entropy_eps: Added inside the logarithm of the entropy.
    """

    alpha: float = 2.0
    beta: float = 5.0
    capacity: int = 3
    negative_alpha: float = 0.117
    negative_beta: float = 1.0
    negative_capacity: int = 2
    entropy_band: tuple[float, float] = (0.2, 0.5)
    mask_band: tuple[float, float] = (0.03, 1.0)
    entropy_eps: float = 0.0

    scoring: ClassVar[frozenset[str]] = frozenset({"alpha", "beta", "negative_alpha"})

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        within(self, 0, inf, "alpha", "beta", "negative_alpha", "negative_beta", "entropy_eps")
        positive(self, "capacity", "negative_capacity")
        for name in ("entropy_band", "mask_band"):
            low, high = getattr(self, name)
            if not low <= high:
                raise BadInputError(f"{name} must be two numbers in order, got {low} and {high}")

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the class texts and two empty caches; the negative one also holds probabilities."""
        text = self.texts(source)
        classes, dim = text.shape
        return {
            "text": text,
            "positive": empty(classes, self.capacity, text, keys=dim),
            "negative": empty(classes, self.negative_capacity, text, keys=dim, maps=classes),
        }

    def believed(self, rows: Tensor, logits: Tensor, chosen: Chosen) -> Consensus:
        """Return what an image is remembered and scored by; the consensus of its confident views."""
        return consensus(chosen.rows, chosen.logits)

    def negative_rule(self) -> Rule:
        """Return the rule of the negative cache."""
        return by_entropy

    def extra_slots(self) -> int:
        """Return how many items more than the positive cache holds of a class an image may meet."""
        return 0

    def lend(self, bank: Bank, image: int, chosen: list[tuple[int, float]]) -> None:
        """Let an image meet its own views, of these classes and entropies, in the positive cache; by default none."""

    def observe(self, source: SourceModel, state: State, inputs: Inputs) -> tuple[State, dict[str, Tensor]]:
        """Return the caches with the images of the batch, and what each image finds in them at its turn."""
        rows = self.rows(inputs)
        logits = text_scale(source) * rows @ state["text"].T
        chosen = confident(rows, logits, self.selection, self.entropy_eps)
        seen = self.believed(rows, logits, chosen)
        entropy = entropies(seen.p, self.entropy_eps)
        positive, negative = (Bank(state[name], len(rows)) for name in ("positive", "negative"))
        self._admit(positive, negative, seen, entropy, chosen)
        kept = {"keys": seen.feature, "entropy": entropy}
        after = {"positive": positive.after(**kept), "negative": negative.after(**kept, maps=seen.p)}
        table = positive.table(self.extra_slots())
        evidence = {
            "logits": seen.logits,
            "affinity": positive.cosines(table, seen.feature, seen.feature, chosen.rows),
            "filled": table >= 0,
            "against": self._against(negative, state["negative"]["maps"], seen),
        }
        return {**state, **after}, evidence

    def _admit(
        self, positive: Bank, negative: Bank, seen: Consensus, entropy: Tensor, chosen: Chosen
    ) -> None:
        """Offer the images to the caches, one after the other."""
        unit, (low, high) = math.log2(max(2, seen.logits.shape[-1])), self.entropy_band
        labels, each = chosen.logits.argmax(-1).tolist(), chosen.entropy.tolist()
        found = zip(seen.logits.argmax(-1).tolist(), entropy.tolist(), strict=True)
        for image, (label, h) in enumerate(found):
            positive.admit(image, label, h, by_entropy)
            self.lend(positive, image, list(zip(labels[image], each[image], strict=True)))
            if low < h / unit < high:
                negative.admit(image, label, h, self.negative_rule())

    def _against(self, bank: Bank, maps: Tensor, seen: Consensus) -> Tensor:
        """Return what the negative cache says against each class (N, K)."""
        table, (low, high) = bank.table(), self.mask_band
        cosines = bank.cosines(table, seen.feature, seen.feature)
        before, now = bank.spread(table, torch.exp(-self.negative_beta * (1 - cosines)))
        held = bank.held()  # most slots are free for long, and their maps are the largest part of the state
        old, new = (between(p, low, high) for p in (maps.flatten(0, 1)[held], seen.p))
        return before[:, held] @ old + now @ new

    def score(self, source: SourceModel, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the logits (N, K): zero-shot, plus the positive cache, less the negative one."""
        near = torch.exp(-self.beta * (1 - evidence["affinity"])) * evidence["filled"]
        for_it = self.alpha * near.sum(-1)
        return evidence["logits"] + for_it - self.negative_alpha * evidence["against"]
