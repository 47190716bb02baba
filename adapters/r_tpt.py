# SPDX-License-Identifier: Apache-2.0
"""R-TPT: tune the prompt on the entropy of each confident view, and predict by views that have near neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.losses import entropy
from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State, ViewPolicy

from ._texts import text_side
from ._view_tuning import NEEDS, PromptTuning, Seen, rows


@dataclass(frozen=True)
class RTpt(PromptTuning):
    """Make each confident view certain by tuning the prompt, and weight the views by how near others lie.

    ``loss = mean_{v in S} H(p_v)``; the prediction is ``sum_v w_v l_v`` with
    ``w = softmax(mean of the k largest x_v . x_u / temperature)`` over all views.

    Source: Sheng et al., CVPR 2025, arXiv:2504.11195.
    Differs: a view is no neighbour of itself by its position, where the reference goes by a cosine of 1, which
        rounding hides; with k or fewer other views all of them count.

    Attributes:
        neighbours: k, the nearest views that a view is weighted by.
        temperature: Divides the mean cosines.
    """

    neighbours: int = 20
    temperature: float = 0.01

    card: ClassVar[Card] = Card(
        paper="arXiv:2504.11195",
        title="R-TPT: Improving Adversarial Robustness of Vision-Language Models through Test-Time Prompt Tuning",
        authors="Sheng, Lijun and Liang, Jian and Wang, Zilei and He, Ran",
        venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
        year=2025,
        category="episodic",
        updates="parameters",
        prompts="single",
        inputs="features",
        needs=NEEDS,
        views=ViewPolicy(64, "crop"),
        reset="image",
        model="pocket-clip",
        vmappable=True,
        chunk=8,
        precision=ALL_PRECISIONS,
        parity="vlm/rtpt",
        cost="64 forward; text tower, over all classes: 2 forward + 1 backward",
        notes="Meant for attacked images; its weights need more views than neighbours.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "imagenet": {"augmentation": "crop"},
        "fine-grained": {"augmentation": "augmix"},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.neighbours < 1 or not self.temperature > 0:
            raise BadInputError(
                "neighbours must be 1 or more and temperature above 0, got "
                f"{self.neighbours} and {self.temperature}"
            )

    def loss(self, seen: Seen) -> Tensor:
        """Return the mean entropy of the chosen views."""
        return entropy(seen.confident).mean()

    def weights(self, features: Tensor) -> Tensor:
        """Return the weights (N, V) of views with features (N, V, D)."""
        unit, count = F.normalize(features, dim=-1), features.shape[-2]
        if count == 1:
            return torch.ones_like(features[..., 0])
        own = torch.eye(count, dtype=torch.bool, device=features.device)
        cosines = (unit @ unit.transpose(-2, -1)).masked_fill(own, -torch.inf)
        near = cosines.topk(min(self.neighbours, count - 1), dim=-1).values.mean(-1)
        return (near / self.temperature).softmax(-1)

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return the weighted sum (N, K) of the logits of the views under the tuned context."""
        logits = text_side(source).logits(rows(inputs), self.texts(source, state["params"]))
        return (self.weights(rows(inputs)).unsqueeze(-1) * logits).sum(-2)
