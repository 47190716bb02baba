# SPDX-License-Identifier: Apache-2.0
"""Shared by RMT and SANTA: prototypes of the source classes, a projector, and the contrastive loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.augment import Draws, Jitter, draw_jitter
from tta_bench.errors import BadInputError
from tta_bench.losses import contrastive
from tta_bench.method import SourceModel, State, Task
from tta_bench.norms import batch
from tta_bench.optim import Tensors

from ._descent import Descending
from ._source_images import source_batches, statistics_note

PREFIX = "projector."
PRESETS: dict[str, dict[str, Any]] = {
    "cifar10-c": {"optimizer": "adam", "lr": 1e-3},
    "cifar100-c": {"optimizer": "adam", "lr": 1e-3},
    "imagenet-c": {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "nesterov": True},
}


@dataclass(frozen=True)
class Prototypical(Descending):
    """Draw features towards the nearest prototype of the source classes, through a projector that is learnt too.

    Attributes:
        temperature: Of the contrastive loss.
        width: Width of the projector.
        samples: Labelled source images for the prototypes; all of them if there are fewer.
        seed: Of the projector's first weights.
        contrast: Weight of the contrastive loss.
        agreement: Weight of the agreement with the other network.
    """

    temperature: float = 0.1
    width: int = 128
    samples: int = 50000
    seed: int = 0
    contrast: float = 1.0
    agreement: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if not self.temperature > 0 or self.width < 1 or self.samples < 1:
            raise BadInputError(
                f"temperature must be above 0, width and samples 1 or more, got {self.temperature}, {self.width} "
                f"and {self.samples}"
            )
        if not self.contrast >= 0 or not self.agreement >= 0:
            raise BadInputError(
                f"contrast and agreement must be 0 or more, got {self.contrast} and {self.agreement}"
            )

    def init_reads(self, available: int) -> int:
        """Return how many source images are read before the stream."""
        return min(self.samples, available)

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the first state, with the projector and the prototypes of the source classes."""
        projector = self._projector(source)
        return {
            **self.initial_state(source),
            "projector": projector,
            "projector_optimizer": self.descent().init(projector),
            "prototypes": self._prototypes(source, task),
        }

    def notes(self, source: SourceModel) -> dict[str, str]:
        """Return which source images the prototypes come from."""
        return statistics_note("mean features of the classes", self.samples)

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Draws:
        """Return the parameters of one augmentation for the whole batch."""
        return draw_jitter(1, source.image_shape, generator, Jitter())

    def trained(self, state: State) -> Tensors:
        """Return what the loss is differentiated by: the adapted tensors and the projector's."""
        return {**state["params"], **{PREFIX + name: p for name, p in state["projector"].items()}}

    def moved_both(self, state: State, grads: Tensors) -> State:
        """Return the state after one step of both optimisers."""
        own = {name.removeprefix(PREFIX): g for name, g in grads.items() if name.startswith(PREFIX)}
        projector, optimizer = self.descent().step(state["projector"], own, state["projector_optimizer"])
        return {**self.moved(state, grads), "projector": projector, "projector_optimizer": optimizer}

    def attraction(self, prototypes: Tensor, tensors: Tensors, features: Tensor, augmented: Tensor) -> Tensor:
        """Return the contrastive loss of each feature (N, D), its augmented copy's and its nearest prototype."""
        with torch.no_grad():
            near = F.normalize(features, dim=-1) @ F.normalize(prototypes, dim=-1).T
            absent = prototypes.abs().amax(-1) == 0  # a class without source images
            nearest = near.masked_fill(absent, -torch.inf).argmax(-1)
        views = torch.stack([prototypes[nearest], features, augmented])
        hidden = F.linear(views, tensors[PREFIX + "0.weight"], tensors[PREFIX + "0.bias"]).relu()
        made = F.linear(hidden, tensors[PREFIX + "2.weight"], tensors[PREFIX + "2.bias"])
        return contrastive(F.normalize(made, dim=-1), self.temperature)

    def _projector(self, source: SourceModel) -> Tensors:
        """Return the weights of two linear layers, drawn as the library draws them, from the seed."""
        generator = torch.Generator().manual_seed(self.seed)
        made: Tensors = {}
        for layer, inside in ((0, source.dim), (2, self.width)):
            reach = 1 / math.sqrt(inside)
            for leaf, shape in (("weight", (self.width, inside)), ("bias", (self.width,))):
                values = (2 * torch.rand(shape, generator=generator) - 1) * reach
                made[f"{layer}.{leaf}"] = values.to(source.dtype).to(source.device)
        return made

    @torch.no_grad()
    def _prototypes(self, source: SourceModel, task: Task) -> Tensor:
        """Return the mean features (K, D) of the source classes, each batch normalised by itself; 0 where none is."""
        total = torch.zeros(source.num_classes, source.dim, dtype=source.dtype, device=source.device)
        found = total[:, :1]
        for images, labels in source_batches(task, self.samples):
            features = source.encode(images, norm=batch())
            chosen = F.one_hot(labels, source.num_classes).to(features)
            total = total + chosen.T @ features  # index_add would not repeat its bits on a GPU
            found = found + chosen.sum(0)[:, None]
        return total / found.clamp(min=1)
