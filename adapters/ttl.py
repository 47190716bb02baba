# SPDX-License-Identifier: Apache-2.0
"""TTL: low-rank updates of the image tower's attention, on the weighted entropy of the views of one image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.losses import entropy
from tta_bench.method import ALL_PRECISIONS, Card, Inputs, SourceModel, State, ViewPolicy
from tta_bench.optim import Tensors

from ._view_tuning import Seen, ViewTuning


@dataclass(frozen=True)
class Ttl(ViewTuning):
    """Tune low-rank updates of query and value maps on the entropy of the views, the certain ones weighing more.

    ``W' = W + alpha / r (A B)^T`` for query and value of the last blocks, with ``B = 0`` before each image;
    ``loss = mean_v exp(margin - H(p_v)) H(p_v)``, no gradient through the weight.

    Source: Imam et al., WACV 2025, arXiv:2407.15913.
    Differs: the last blocks are counted from the end, where the reference names the blocks of ViT-B; no dropout.

    Attributes:
        rank: r, of the updates.
        alpha: Their scale, divided by the rank.
        blocks: How many blocks, from the last, are updated.
        margin: Entropy in nats at which a view weighs 1.
        lora_seed: Of the initial A, which is the same for all images.
    """

    selection: float = 1.0
    rank: int = 16
    alpha: float = 32.0
    blocks: int = 3
    margin: float = 0.4
    lora_seed: int = 0

    card: ClassVar[Card] = Card(
        paper="arXiv:2407.15913",
        title="Test-Time Low Rank Adaptation via Confidence Maximization for Zero-Shot Generalization of "
        "Vision-Language Models",
        authors="Imam, Raza and Gani, Hanan and Huzaifa, Muhammad and Nandakumar, Karthik",
        venue="IEEE/CVF Winter Conference on Applications of Computer Vision",
        year=2025,
        category="episodic",
        updates="parameters",
        needs=frozenset({"text", "gradients", "attention"}),
        views=ViewPolicy(64, "crop"),
        reset="image",
        model="pocket-vit-clip",
        vmappable=True,
        chunk=8,
        precision=ALL_PRECISIONS,
        idle=(("alpha", 0.0),),
        parity="vlm/ttl",
        cost="65 forward + 64 backward, the latter through the last blocks alone",
        notes="Needs attention in the image tower. Published scripts differ in the share of views they keep: "
        "all of them here, 0.1 in others.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "imagenet": {"augmentation": "crop"},
        "fine-grained": {"augmentation": "augmix"},
        "selected": {"selection": 0.1},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.rank < 1 or self.blocks < 1:
            raise BadInputError(f"rank and blocks must be 1 or more, got {self.rank} and {self.blocks}")
        if not math.isfinite(self.alpha) or not math.isfinite(self.margin):
            raise BadInputError(f"alpha and margin must be finite, got {self.alpha} and {self.margin}")

    def layers(self, source: SourceModel) -> tuple[str, ...]:
        """Return the names of the attention weights (3 d, d) of the last blocks.

        Raises:
            IncompatibleError: If the image tower has none.
        """
        weights = source.attention_weights()
        if not weights:
            raise IncompatibleError(
                f"Ttl needs attention blocks in the image tower, and {source.name!r} has none; choose a vision "
                "transformer, e.g. pocket-vit-clip or open_clip/ViT-B-16:TAG"
            )
        return weights[-self.blocks :]

    def tensors(self, source: SourceModel) -> Tensors:
        """Return A (d, r), Xavier-normal, and B (r, d), zero, for query and value of each layer."""
        generator, chosen = torch.Generator().manual_seed(self.lora_seed), {}
        for name in self.layers(source):
            width = source.params[name].shape[1]
            for part in ("q", "v"):
                drawn = torch.randn(width, self.rank, generator=generator, dtype=torch.float64)
                first = drawn * math.sqrt(2 / (width + self.rank))
                chosen[f"{name}.{part}.A"] = first.to(source.params[name])
                chosen[f"{name}.{part}.B"] = source.params[name].new_zeros(self.rank, width)
        return chosen

    def updated(self, source: SourceModel, params: Tensors) -> Tensors:
        """Return the attention weights with their low-rank updates, by name."""
        changed = {}
        for name in self.layers(source):
            q, v = (
                self.alpha / self.rank * (params[f"{name}.{part}.A"] @ params[f"{name}.{part}.B"]).T
                for part in ("q", "v")
            )
            changed[name] = source.params[name] + torch.cat([q, torch.zeros_like(q), v])
        return changed

    def look(
        self, source: SourceModel, state: State, params: Tensors, inputs: Inputs, before: Seen | None
    ) -> Seen:
        """Return the logits of the views under the updates; the class features stand."""
        assert inputs.views is not None
        flat = source.logits(inputs.views.flatten(0, 1), self.updated(source, params))
        logits = torch.unflatten(flat, 0, inputs.views.shape[:2])
        return Seen(logits, source.head_weight(), logits.new_zeros(0, dtype=torch.int64), {})

    def loss(self, seen: Seen) -> Tensor:
        """Return the mean weighted entropy of the chosen views."""
        each = entropy(seen.confident)
        return ((self.margin - each.detach()).exp() * each).mean()

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return the logits (N, K) of the images under the tuned updates."""
        assert inputs.images is not None
        return source.logits(inputs.images, self.updated(source, state["params"]))
