# SPDX-License-Identifier: Apache-2.0
"""DMN: class prototypes read from a dynamic memory of test features for each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.losses import chosen_views, least
from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State, Task, ViewPolicy

from ._bank import Bank, always_over_the_worst, empty, over_the_worst
from ._matching import NEEDS, Matching, consensus, entropies, text_scale
from ._ranges import positive, within


@dataclass(frozen=True)
class Dmn(Matching):
    """Let each class's prototype gather those remembered features, and the class text, that resemble the image.

    ``p = softmax(s x.T) + alpha softmax(s x.P(x))`` with ``P_k(x) = unit(sum_i exp(-beta (1 - x.m_i)) m_i)`` over the
    memory of class k and its text. The image enters the memory of its predicted class before it is scored, if a
    place is free or held by an image of larger entropy. The scores are divided by ``1 + alpha``.

    Source: Zhang et al., CVPR 2024, arXiv:2403.17589, section 3.2 without training (DMN-ZS).
    Differs: ``alpha`` is 1, where the reference searches it on the test labels; one prompt set where the reference
    adds sentences by GPT-3.

    Attributes:
        memory: Features of each class.
        alpha: Weight of the memory.
        beta: Sharpness of its affinities.
        view_eps: Added inside the logarithm of a view's entropy.
        entropy_eps: Added inside the logarithm of an image's entropy.
        mean_logits: Predict from the mean logits of the confident views instead of their mean probabilities.
        always: Let every image take the place of the largest entropy, as a port of the method does.
    """

    views: int = 32
    memory: int = 50
    alpha: float = 1.0
    beta: float = 5.5
    view_eps: float = 1e-6
    entropy_eps: float = 1e-8
    mean_logits: bool = False
    always: bool = False

    card: ClassVar[Card] = Card(
        paper="arXiv:2403.17589",
        title="Dual Memory Networks: A Versatile Adaptation Approach for Vision-Language Models",
        authors="Zhang, Yabin and Zhu, Wenjie and Tang, Hui and Ma, Zhiyuan and Zhou, Kaiyang and Zhang, Lei",
        venue="Conference on Computer Vision and Pattern Recognition",
        year=2024,
        category="online",
        updates="state",
        inputs="features",
        needs=NEEDS,
        views=ViewPolicy(32),
        output="probabilities",
        predicts="during",
        model="pocket-clip",
        precision=ALL_PRECISIONS,
        idle=(("alpha", 0.0),),
        parity="vlm/dmn",
        cost="32 forward with 32 views",
        notes="Online and without gradients; reads K x memory x D numbers for every image. The published weight of the "
        "memory was chosen on the test labels.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "zhang-2024": {"augmentation": "augmix"},
        "zhang-2024-imagenet": {},
        "weak": {"views": 1, "prompts": "single", "view_eps": 0.0, "entropy_eps": 1e-5, "always": True},
        "tta-vlm": {
            "views": 64, "prompts": "single", "view_eps": 0.0, "entropy_eps": 1e-5, "mean_logits": True,
            "always": True,
        },
    }  # fmt: skip
    scoring: ClassVar[frozenset[str]] = frozenset({"alpha"})

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        within(self, 0, inf, "alpha", "beta", "view_eps", "entropy_eps")
        positive(self, "memory")

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the class texts and an empty memory."""
        text = self.texts(source)
        return {"text": text, "memory": empty(len(text), self.memory, text, keys=text.shape[1])}

    def observe(self, source: SourceModel, state: State, inputs: Inputs) -> tuple[State, dict[str, Tensor]]:
        """Return the memory with the images of the batch, and what the texts and the memory predict."""
        rows, scale, text = self.rows(inputs), text_scale(source), state["text"]
        logits = scale * rows @ text.T
        views = least(entropies(logits.softmax(-1), self.view_eps), self.selection)
        seen = consensus(chosen_views(rows, views), chosen_views(logits, views))
        q = seen.logits.softmax(-1) if self.mean_logits else seen.p
        entropy, image = entropies(q, self.entropy_eps), rows[:, 0]
        bank, rule = (
            Bank(state["memory"], len(rows)),
            always_over_the_worst if self.always else over_the_worst,
        )
        for index, (label, h) in enumerate(zip(q.argmax(-1).tolist(), entropy.tolist(), strict=True)):
            bank.admit(index, label, h, rule)
        table = bank.table()
        weights = torch.exp(-self.beta * (1 - bank.cosines(table, image, image)))
        near = torch.exp(-self.beta * (1 - image @ text.T))
        found = near.unsqueeze(-1) * text + bank.sums(table, weights, image, q.argmax(-1))
        read = scale * (F.normalize(found, dim=-1) @ image.unsqueeze(-1)).squeeze(-1)
        after = {**state, "memory": bank.after(keys=image, entropy=entropy)}
        return after, {"text": logits[:, 0].softmax(-1), "memory": read.softmax(-1)}

    def score(self, source: SourceModel, evidence: Mapping[str, Tensor]) -> Tensor:
        """Return the probabilities (N, K) of texts and memory together."""
        return (evidence["text"] + self.alpha * evidence["memory"]) / (1 + self.alpha)
