# SPDX-License-Identifier: Apache-2.0
"""Shared by ROID and CMF: weighted soft likelihood ratios, consistency under augmentation, prior correction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.augment import Draws, Jitter, augment, draw_jitter
from tta_bench.errors import BadInputError
from tta_bench.losses import entropy, soft_likelihood_ratio, symmetric_cross_entropy
from tta_bench.method import Adapted, Inputs, SourceModel, State
from tta_bench.norms import batch
from tta_bench.optim import Tensors, gradient

from ._descent import Descending

AUGMENTATION = Jitter(padding="reflect", sigma=None, noise=0.0)
SMALLEST_RANGE = 1e-6  # rounding of a cosine; values that agree to it are taken as equal
PRESETS: dict[str, dict[str, Any]] = {
    "cifar10-c": {"optimizer": "adam", "lr": 1e-3},
    "cifar100-c": {"optimizer": "adam", "lr": 1e-3},
    "imagenet-c": {"optimizer": "sgd", "lr": 2.5e-4, "momentum": 0.9, "nesterov": True},
    "imagenet-c-vit": {"optimizer": "sgd", "lr": 2.5e-4, "momentum": 0.9, "nesterov": True},
}


@dataclass(frozen=True)
class Weighted(Descending):
    """Follow weighted soft likelihood ratios downhill and correct the predictions by their own prior.

    Attributes:
        temperature: Divides the product of a sample's diversity and certainty in the exponent of its weight.
        keep: Share of the mean prediction that is kept at each batch.
        weighting: Whether samples are weighted and those like the mean prediction left out.
        consistency: Whether the predictions of augmented copies are to agree with those of the images.
        prior_correction: Whether the logits are corrected by the batch's mean prediction.
    """

    temperature: float = 1 / 3
    keep: float = 0.9
    weighting: bool = True
    consistency: bool = True
    prior_correction: bool = True

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if not self.temperature > 0 or not 0 <= self.keep <= 1:
            raise BadInputError(
                f"temperature must be above 0 and keep lie in [0, 1], got {self.temperature} and {self.keep}"
            )

    def initial_state(self, source: SourceModel) -> State:
        """Return the first state: the mean prediction is uniform."""
        share = 1 / source.num_classes
        mean = torch.full((source.num_classes,), share, dtype=source.dtype, device=source.device)
        return {**super().initial_state(source), "mean": mean}

    def draw(self, source: SourceModel, n: int, generator: torch.Generator) -> Draws | None:
        """Return the parameters of one augmentation for the whole batch."""
        return draw_jitter(1, source.image_shape, generator, AUGMENTATION) if self.consistency else None

    def ensembled(self, source: SourceModel, state: State) -> State:
        """Return the state after the method's own averaging of the adapted tensors, which follows the step."""
        raise NotImplementedError

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after one update, and the corrected logits of the pass before it."""
        images = inputs.images
        assert images is not None

        def loss(params: Tensors) -> tuple[Tensor, Tensor]:
            logits = source.logits(images, params, norm=batch())
            weights, kept = self._weights(state["mean"], logits.detach())
            value = (weights * soft_likelihood_ratio(logits[kept])).sum()
            if self.consistency:
                again = source.logits(augment(images[kept], inputs.draws), params, norm=batch())
                value = value + (weights * symmetric_cross_entropy(logits[kept], again)).sum()
            return value / len(images), logits

        grads, _, logits = gradient(loss, state["params"])
        seen = logits.softmax(-1).mean(0)
        mean = self.keep * state["mean"] + (1 - self.keep) * seen
        after = self.ensembled(source, {**self.moved(state, grads), "mean": mean})
        return Adapted(after, corrected(logits) if self.prior_correction else logits)

    def _weights(self, mean: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights (M,) of the samples that are kept, and which (N,) these are."""
        if not self.weighting:
            return logits.new_ones(len(logits)), torch.ones_like(logits[:, 0], dtype=torch.bool)
        diverse = _scaled(1 - F.cosine_similarity(mean, logits.softmax(-1), dim=-1))
        certain = _scaled(-entropy(logits))
        kept = ~(diverse < diverse.mean())
        return (diverse * certain / self.temperature).exp()[kept], kept


def _scaled(values: Tensor) -> Tensor:
    """Return values (N,) between 0 and 1; all 0 where they are equal, which gives every sample the weight 1."""
    low, high = values.min(), values.max()
    spread = high - low
    return torch.where(
        spread <= SMALLEST_RANGE, values * 0, (values - low) / spread.clamp(min=SMALLEST_RANGE)
    )


def corrected(logits: Tensor) -> Tensor:
    """Return logits (N, K) scaled class by class by the smoothed mean prediction of the batch.

    Source: arXiv:2306.00650, section 3.4. The logits themselves are multiplied, not their probabilities.
    """
    count, classes = logits.shape
    prior = logits.softmax(-1).mean(0)
    smooth = max(1 / count, 1 / classes) / prior.max()
    return logits * (prior + smooth) / (1 + classes * smooth)
