# SPDX-License-Identifier: Apache-2.0
"""Panda: logits less what images without meaning, shuffled from the batch, are taken for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.losses import entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State, Task
from tta_bench.optim import Optimizer, Tensors, gradient

from ._both_towers import class_terms, norms_of_both, parted
from ._descent import Descending
from ._ranges import one_of, within
from ._texts import text_side

IMAGES_PER_COMPOSITE = 10


class Seen(NamedTuple):
    """The outputs of a pass: raw features (N, D), unit class texts (K, D), and shifted logits (N, K)."""

    features: Tensor
    text: Tensor
    logits: Tensor


class Step(NamedTuple):
    """The results of one update: the state, the loss before it, and the outputs of the pass before it."""

    state: State
    loss: Tensor
    seen: Seen


@dataclass(frozen=True)
class Panda(Descending):
    """Adapt on logits that are less biased by the shift, for their common part is taken away.

    ``z_i = s (x_i.T - beta n.T)`` with n the mean unit feature of composites, one for every ten images of the batch:
    each is an image whose patches come from other images at random. The gradient goes through n too. ``tent`` minimises
    the mean entropy of z and predicts after the update with new composites; ``eta`` weighs the entropies of reliable
    images by ``exp(margin - H)`` and predicts before it; ``bat`` takes the loss of BAT-CLIP, with z for its logits, and
    predicts after the update with the texts and composites of before.

    Source: Deng et al., AAAI 2026, arXiv:2511.10481, section 4.
    Differs: a batch of one image, which has no others, is not shifted; the reference never ends there. The published
    text names no learning rate.

    Attributes:
        base: ``"tent"``, ``"eta"`` or ``"bat"``.
        beta: Share of the composites' feature that is taken away.
        patch: Side of a patch, pixels; 0 for a seventh of the image, 32 of 224.
        margin: Entropy below which an image is reliable, as a share of ln K; for ``eta``.
        scale: Factor s of the cosines; 0 for that of the source model.
    """

    lr: float = 1e-3
    optimizer: Optimizer = "adam"
    base: Literal["tent", "eta", "bat"] = "tent"
    beta: float = 0.2
    patch: int = 0
    margin: float = 0.4
    scale: float = 100.0

    card: ClassVar[Card] = Card(
        paper="arXiv:2511.10481",
        title="Panda: Test-Time Adaptation with Negative Data Augmentation",
        authors="Deng, Ruxi and Bao, Wenxuan and Wei, Tianxin and He, Jingrui",
        venue="AAAI Conference on Artificial Intelligence",
        year=2026,
        category="online",
        updates="parameters",
        needs=frozenset({"text", "gradients"}),
        predicts="after",
        model="pocket-clip",
        precision=ALL_PRECISIONS,
        idle=(("lr", 0.0), ("beta", 0.0), ("scale", 0.0)),
        parity="vlm/panda",
        reference_licence="none stated",
        cost="2.2 forward + 1.1 backward",
        notes="Each batch needs two images or more; with the same composites a batch of one class loses its class too.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tent": {"base": "tent", "beta": 0.2, "prompts": "single"},
        "eta": {"base": "eta", "beta": 0.2, "prompts": "single"},
        "bat": {"base": "bat", "beta": 0.6, "optimizer": "adamw", "weight_decay": 0.01, "prompts": "single"},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        one_of(self, "base", "tent", "eta", "bat")
        within(self, 0, inf, "beta", "patch", "margin", "scale")

    def tensors(self, source: SourceModel) -> Tensors:
        """Return the affine tensors of the image tower's norm layers; those of the text tower too for ``bat``."""
        return norms_of_both(source) if self.base == "bat" else super().tensors(source)

    def init(self, source: SourceModel, task: Task) -> State:
        """Return the norm layers' tensors, the optimiser's state and the class texts (K, D)."""
        return {**self.initial_state(source), "text": text_side(source).prototypes()}

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Any:
        """Return for each set of composites their base images (M,) and the images (M, P) of their patches.

        None for one image.
        """
        if n < 2:
            return None
        sets, count = 2 if self.base == "tent" else 1, math.ceil(n / IMAGES_PER_COMPOSITE)
        side = self._side(source)
        places = (source.image_shape[1] // side) * (source.image_shape[2] // side)
        base = torch.randint(n, (sets, count), generator=generator)
        others = torch.randint(n - 1, (sets, count, places), generator=generator)
        patches = others + (others >= base.unsqueeze(-1))  # any image but the base
        return {"base": base.to(source.device), "patches": patches.to(source.device)}

    def _side(self, source: SourceModel) -> int:
        """Return the side of a patch, pixels.

        Raises:
            BadInputError: If it is larger than the image.
        """
        smallest = min(source.image_shape[1:])
        side = self.patch or max(1, smallest // 7)
        if side > smallest:
            raise BadInputError(f"patch must be at most the side of the image, {smallest}, got {side}")
        return side

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after one update, and the logits."""
        assert inputs.images is not None
        negatives = self.composites(source, inputs, 0)
        first = self.update(source, state, inputs.images, negatives)
        if self.base == "eta":
            return Adapted(first.state, first.seen.logits)
        with torch.no_grad():
            if self.base == "tent":
                negatives = self.composites(source, inputs, 1)
            visual, _ = parted(first.state["params"])
            again = self._looked(source, visual, first.seen.text, inputs.images, negatives)
        return Adapted(first.state, again.logits)

    def update(self, source: SourceModel, state: State, images: Tensor, negatives: Tensor | None) -> Step:
        """Take a step on images (N, C, H, W) with composites (M, C, H, W); none where ``eta`` keeps no image."""
        margin = self.margin * math.log(source.num_classes)

        def loss(params: Tensors) -> tuple[Tensor, Seen]:
            visual, texts = parted(params)
            text = text_side(source).prototypes_with(texts) if self.base == "bat" else state["text"]
            seen = self._looked(source, visual, text, images, negatives)
            each = entropy(seen.logits)
            if self.base == "eta":
                weight = (margin - each.detach()).exp() * (each.detach() < margin)
                return (weight * each).sum() / (weight > 0).sum().clamp(min=1), seen
            value = each.mean()
            if self.base == "bat":
                near, apart = class_terms(seen.features, text, seen.logits)
                value = value - near - apart
            return value, seen

        grads, value, seen = gradient(loss, state["params"])
        idle = self.base == "eta" and not bool((entropy(seen.logits) < margin).any())
        return Step(state if idle else self.moved(state, grads), value, seen)

    def _looked(
        self, source: SourceModel, visual: Tensors, text: Tensor, images: Tensor, negatives: Tensor | None
    ) -> Seen:
        """Return what a pass gives with tensors of the image tower and class texts (K, D)."""
        scale = self.scale or text_side(source).scale
        features = source.encode(images if negatives is None else torch.cat([images, negatives]), visual)
        own, x = features[: len(images)], F.normalize(features, dim=-1)
        logits: Tensor = scale * x[: len(images)] @ text.T
        if negatives is not None:
            logits = logits - self.beta * scale * x[len(images) :].mean(0) @ text.T
        return Seen(own, text, logits)

    def composites(self, source: SourceModel, inputs: Inputs, index: int) -> Tensor | None:
        """Return the composites (M, C, H, W) of one set of draws; None for one image."""
        if inputs.draws is None or self.beta == 0:
            return None
        base, patches = (inputs.draws[name][index] for name in ("base", "patches"))
        assert inputs.images is not None
        return shuffled(inputs.images, base, patches, self._side(source))


def shuffled(images: Tensor, base: Tensor, patches: Tensor, side: int) -> Tensor:
    """Return images (M, C, H, W) made of the patches of others.

    Args:
        images: (N, C, H, W).
        base: (M,) the image that shows where no whole patch fits.
        patches: (M, P) the image that each patch is from, row by row.
        side: Of a patch, pixels.
    """
    rows, columns = images.shape[-2] // side, images.shape[-1] // side
    inside = images[..., : rows * side, : columns * side]
    tiles = inside.reshape(*images.shape[:2], rows, side, columns, side)
    tiles = tiles.permute(2, 4, 0, 1, 3, 5).flatten(0, 1)  # (P, N, C, side, side)
    taken = tiles[torch.arange(len(tiles), device=images.device), patches]  # (M, P, C, side, side)
    taken = taken.reshape(len(base), rows, columns, *taken.shape[2:]).permute(0, 3, 1, 4, 2, 5)
    made = images[base]
    made[..., : rows * side, : columns * side] = taken.reshape(*made.shape[:2], rows * side, columns * side)
    return made
