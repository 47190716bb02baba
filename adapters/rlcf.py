# SPDX-License-Identifier: Apache-2.0
"""RLCF: tune the prompt by policy gradient on how well a second CLIP model finds sampled classes to fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.losses import chosen_views, reward_loss
from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State, ViewPolicy
from tta_bench.optim import Tensors
from tta_bench.prompts import PHOTO, sentences

from ._texts import text_side
from ._view_tuning import NEEDS, PromptTuning, Seen


@dataclass(frozen=True)
class Rlcf(PromptTuning):
    """Raise the classes that a reward model finds to fit confident views, and lower those that it does not.

    ``loss = mean_{v in S, k} r_vk * CE(l_v, c_vk)`` over the classes ``c_vk`` of the K largest logits, with
    ``r_vk = max(0, w g(x_v) . g(t_c))`` of the reward model ``g``, less its mean over k.

    Source: Zhao et al., ICLR 2024, arXiv:2305.18010, prompt tuning.
    Differs: the variant that tunes the image tower is left out; image features are computed once.

    Attributes:
        samples: K, the classes that are sampled from each view.
        amplify: w, the factor of the cosines.
    """

    lr: float = 7e-3
    weight_decay: float = 5e-4
    steps: int = 3
    samples: int = 3
    amplify: float = 2.5

    card: ClassVar[Card] = Card(
        paper="arXiv:2305.18010",
        title="Test-Time Adaptation with CLIP Reward for Zero-Shot Generalization in Vision-Language Models",
        authors="Zhao, Shuai and Wang, Xiaohan and Zhu, Linchao and Yang, Yi",
        venue="International Conference on Learning Representations",
        year=2024,
        category="episodic",
        updates="parameters",
        prompts="single",
        needs=NEEDS | {"reward"},
        views=ViewPolicy(64, "crop"),
        reset="image",
        model="pocket-clip",
        vmappable=True,
        chunk=8,
        precision=ALL_PRECISIONS,
        parity="vlm/rlcf",
        cost="70 forward, 6 of them by the reward model; text tower, over all classes: 4 forward + 3 backward",
        notes="What it gains is bounded by the reward model, which the published numbers take larger than the model.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "imagenet": {"steps": 3, "augmentation": "crop"},
        "fine-grained": {"steps": 5, "augmentation": "augmix"},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.samples < 1 or not self.amplify > 0:
            raise BadInputError(
                f"samples must be 1 or more and amplify above 0, got {self.samples} and {self.amplify}"
            )

    def gather(
        self, source: SourceModel, state: State, inputs: Inputs, seen: Seen, before: Seen | None
    ) -> Tensors:
        """Return sampled classes (N, k, K'), their rewards, and all cosines (N, k, K) of the reward model."""
        cosines = self._judged(source, inputs, seen) if before is None else before.extra["cosines"]
        count = min(self.samples, source.num_classes)
        classes = seen.confident.topk(count, dim=-1).indices
        rewards = (self.amplify * cosines.gather(-1, classes)).clamp(min=0)
        if count > 1:
            rewards = rewards - rewards.mean(-1, keepdim=True)
        return {"cosines": cosines, "classes": classes, "rewards": rewards}

    def sentences(self, source: SourceModel) -> tuple[str, ...]:
        """Return the class prompts that the context starts as, and those of the reward model."""
        return (*super().sentences(source), *sentences(PHOTO, source.class_names))

    def loss(self, seen: Seen) -> Tensor:
        """Return the policy-gradient loss in the mean over images."""
        return reward_loss(seen.confident, seen.extra["rewards"], seen.extra["classes"]).mean()

    def _judged(self, source: SourceModel, inputs: Inputs, seen: Seen) -> Tensor:
        """Return the reward model's cosines (N, k, K) of the chosen views and all classes."""
        reward, views = source.reward, inputs.views
        assert reward is not None
        assert views is not None
        flat = chosen_views(views.flatten(2), seen.chosen).flatten(0, 1)
        flat = torch.unflatten(flat, -1, views.shape[2:])
        if flat.shape[-2:] != reward.image_shape[1:]:
            size = reward.image_shape[1:]
            flat = F.interpolate(flat, size, mode="bicubic", align_corners=True).clamp(0, 1)
        features = F.normalize(reward.encode(flat), dim=-1)
        text = text_side(reward).prototypes(PHOTO)
        return torch.unflatten(features @ text.T, 0, seen.chosen.shape)
