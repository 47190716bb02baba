# SPDX-License-Identifier: Apache-2.0
"""BoostAdapter: TDA's caches, with the image's own confident views beside the remembered features."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

from torch import Tensor

from tta_bench.method import ALL_PRECISIONS, Card, ViewPolicy

from ._bank import Bank, Item, Row, Rule, by_entropy, latest
from ._cache import PAIRS, Caching
from ._matching import NEEDS, Chosen, Consensus, consensus
from ._ranges import within

DELTA = {
    "caltech101": 2, "dtd": 0, "eurosat": 0, "fgvc-aircraft": 2, "food101": 3, "flowers102": 0, "oxford-pets": 0,
    "stanford-cars": 3, "sun397": 1, "ucf101": 0, "imagenet-a": 3, "imagenet-r": 3, "imagenet-sketch": 1,
    "imagenet-v2": 1,
}  # fmt: skip
"""Published ``delta`` by dataset; there is none for ImageNet."""


@dataclass(frozen=True)
class BoostAdapter(Caching):
    """Compare an image with test images that came before it and with its own confident views.

    ``z = s x . t + alpha sum_i exp(-beta (1 - x . k_i)) v_i`` over keys and values of both caches, negative ones subtracted.
    As TDA, but the positive cache that an image meets also holds its confident views, each under its own predicted
    class, with ``delta`` more places of each class; they are forgotten after the image. The negative cache keeps the
    newest features.

    Source: Zhang et al., NeurIPS 2024, arXiv:2410.15430, section 4 and appendix.
    Differs: nothing; ``delta`` of ImageNet, which the authors do not give, is 1.

    Attributes:
        delta: Places of each class that an image's own views may take besides those of the cache.
        together: Score the mean of the confident views instead of the image, as published for shifts of ImageNet.
    """

    views: int = 64
    delta: int = 3
    together: bool = False

    card: ClassVar[Card] = Card(
        paper="arXiv:2410.15430",
        title="BoostAdapter: Improving Vision-Language Test-Time Adaptation via Regional Bootstrapping",
        authors="Zhang, Taolin and Wang, Jinpeng and Guo, Hang and Dai, Tao and Chen, Bin and Xia, Shu-Tao",
        venue="Advances in Neural Information Processing Systems",
        year=2024,
        category="online",
        updates="state",
        inputs="features",
        needs=NEEDS,
        views=ViewPolicy(64),
        predicts="during",
        model="pocket-clip",
        precision=ALL_PRECISIONS,
        idle=(("alpha", 0.0), ("negative_alpha", 0.0)),
        parity="vlm/boostadapter",
        cost="64 forward with 64 views",
        notes="Online and without gradients; depends on the order. The published settings were chosen on test sets.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        name: {"alpha": alpha, "beta": beta, "delta": DELTA.get(name, 1)}
        | ({"prompts": "seven"} if name.startswith("imagenet") else {})
        | ({"together": True} if name.startswith("imagenet-") else {})
        for name, (alpha, beta) in PAIRS.items()
    } | {"tta-vlm": {"prompts": "single", "entropy_eps": 1e-5}}

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        within(self, 0, inf, "delta")

    def believed(self, rows: Tensor, logits: Tensor, chosen: Chosen) -> Consensus:
        """Return the consensus of the confident views, or the image alone."""
        return consensus(*((chosen.rows, chosen.logits) if self.together else (rows[:, :1], logits[:, :1])))

    def negative_rule(self) -> Rule:
        """Return the rule that keeps the newest features."""
        return latest

    def extra_slots(self) -> int:
        """Return the places for an image's own views."""
        return self.delta

    def lend(self, bank: Bank, image: int, chosen: list[tuple[int, float]]) -> None:
        """Put an image's confident views among the items of their classes, for this image alone."""
        rows: dict[int, Row] = {}
        for column, (label, entropy) in enumerate(chosen, bank.first + bank.images):
            row = rows.get(label, bank.row(label))
            rows[label] = by_entropy(row, Item(entropy, column), self.capacity + self.delta)
        for label, row in rows.items():
            bank.lend(image, label, row)
