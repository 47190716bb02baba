# SPDX-License-Identifier: Apache-2.0
"""DeYO: entropy minimisation on samples whose prediction depends on the shape of the object."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tta_bench.augment import paint_middle, shuffle_patches, shuffle_pixels
from tta_bench.errors import BadInputError
from tta_bench.losses import entropy
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel
from tta_bench.norms import batch
from tta_bench.optim import Tensors, gradient

from ._descent import Descending
from ._layers import lower_norms

REFERENCE = 0.4


@dataclass(frozen=True)
class Deyo(Descending):
    """Minimise the entropy of samples that lose confidence when their object is destroyed.

    ``PLPD_i = p_i[c] - p'_i[c]``, c the predicted class and p' the prediction on a copy without the object's
    shape. ``S = {i: H_i < margin * ln K, PLPD_i > plpd}`` and
    ``loss = mean_S (exp(0.4 ln K - H_i) + exp(PLPD_i)) * H_i``, the weight without gradient. BatchNorm layers
    see the destroyed copies of the low-entropy samples alone. Where S is empty nothing changes. The logits
    are those before the update.

    Source: Lee et al., ICLR 2024, "Entropy is not Enough for Test-Time Adaptation", eqs. 5 to 8.
    Differs: the last of the network's four stages and the final norm are found by position, on any model.

    Attributes:
        margin: Entropy below which a sample may count, as a share of ln K.
        plpd: Loss of confidence above which it counts.
        destroy: ``"patch"`` permutes patches, ``"pixel"`` all pixels, alike for the batch, and ``"occ"`` paints the
            middle of the image with its mean colour.
        patches: Patches along each side, for ``"patch"``.
        layers: Names of the norm layers to adapt; empty: all but those of the last stage.
    """

    margin: float = 0.5
    plpd: float = 0.2
    destroy: Literal["patch", "pixel", "occ"] = "patch"
    patches: int = 4
    layers: tuple[str, ...] = ()

    card: ClassVar[Card] = Card(
        paper="openreview:9w3iw8wDuE",
        title="Entropy is not Enough for Test-Time Adaptation: From the Perspective of Disentangled Factors",
        authors="Lee, Jonghyun and Jung, Dahuin and Lee, Saehyung and Park, Junsung and Shin, Juhyeon and "
        "Hwang, Uiwon and Yoon, Sungroh",
        venue="International Conference on Learning Representations",
        year=2024,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients"}),
        predicts="before",
        precision=ALL_PRECISIONS,
        parity="online/deyo",
        cost="2 forward + 1 backward; the second forward over the samples of low entropy alone",
        notes="A second forward pass, without gradients, over the destroyed copies.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"optimizer": "adam", "lr": 1e-3},
        "imagenet-c": {"optimizer": "sgd", "lr": 2.5e-4, "momentum": 0.9},
        "imagenet-c-vit": {"optimizer": "sgd", "lr": 1e-3, "momentum": 0.9},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.destroy not in ("patch", "pixel", "occ"):
            raise BadInputError(f"destroy must be 'patch', 'pixel' or 'occ', got {self.destroy!r}")
        if self.patches < 1 or not self.margin >= 0 or math.isnan(self.plpd):
            raise BadInputError(
                "patches must be 1 or more, margin 0 or more and plpd a number, "
                f"got {self.patches}, {self.margin} and {self.plpd}"
            )

    def tensors(self, source: SourceModel) -> Tensors:
        """Return the affine tensors of the norm layers below the last stage, or of those that were named."""
        return lower_norms(source, self.layers)

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Tensor | None:
        """Return permutations (N, P): of each image's patches, or one of the pixels for all."""
        if self.destroy == "occ":
            return None
        if self.destroy == "patch":
            return torch.rand(n, self.patches**2, generator=generator).argsort(-1)
        pixels = source.image_shape[1] * source.image_shape[2]
        return torch.randperm(pixels, generator=generator).expand(n, -1)

    def adapt(self, source: SourceModel, state: Any, inputs: Inputs) -> Adapted:
        """Return the state after one update, or the same where no sample is kept, and the logits before it."""
        images, draws, unit = inputs.images, inputs.draws, math.log(source.num_classes)
        assert images is not None

        def loss(params: Tensors) -> tuple[Tensor, tuple[Tensor, bool]]:
            logits = source.logits(images, params, norm=batch())
            low = entropy(logits.detach()) < self.margin * unit
            if not low.any():
                return logits.new_zeros(()), (logits, False)
            with torch.no_grad():
                copies = self._destroyed(images[low], None if draws is None else draws[low])
                p = logits[low].softmax(-1)
                p_copies = source.logits(copies, params, norm=batch()).softmax(-1)
                top = p.argmax(-1, keepdim=True)
                plpd = (p.gather(1, top) - p_copies.gather(1, top)).squeeze(1)
            kept = plpd > self.plpd
            if not kept.any():
                return logits.new_zeros(()), (logits, False)
            each = entropy(logits[low][kept])
            weight = (REFERENCE * unit - each.detach()).exp() + plpd[kept].exp()
            return (weight * each).mean(), (logits, True)

        grads, _, (logits, step) = gradient(loss, state["params"])
        return Adapted(self.moved(state, grads) if step else state, logits)

    def _destroyed(self, images: Tensor, order: Tensor | None) -> Tensor:
        """Return copies (N, C, H, W) of images in which the object's shape is gone."""
        if order is None:
            return paint_middle(images)
        return (
            shuffle_pixels(images, order)
            if self.destroy == "pixel"
            else shuffle_patches(images, order, self.patches)
        )
