# SPDX-License-Identifier: Apache-2.0
"""SAR: sharpness-aware minimisation of the entropy of reliable samples, with recovery from collapse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.method import ALL_PRECISIONS, Adapted, Card, Inputs, SourceModel, State
from tta_bench.norms import batch
from tta_bench.optim import Optimizer, Tensors, gradient, sam_ascent

from ._certainty import Certain
from ._layers import lower_norms

KEEP = 0.9


@dataclass(frozen=True)
class Sar(Certain):
    """Minimise the entropy of reliable samples where it is flat, and start afresh when it collapses.

    ``R = {i: H_i < E0}``, ``E0 = margin * ln K``; ``theta' = theta + rho * g / ||g||`` with the gradient g of
    ``mean_R H``; at ``theta'`` the loss is ``mean H`` over those of R that are still below E0, and its gradient
    moves theta. A moving average of that loss below ``recovery`` restores the first state. Where nothing is
    left nothing changes. The logits are those of the first pass.

    Source: Niu et al., ICLR 2023, arXiv:2302.12400, eqs. 2 to 6.
    Differs: the last of the network's four stages and the final norm are found by position, on any model; a
    fresh start and a reset also clear the momentum.

    Attributes:
        margin: Entropy below which a sample is reliable, as a share of ln K.
        rho: Length of the ascent step.
        recovery: Average loss below which the first state is restored, nats; 0 for never.
        layers: Names of the norm layers to adapt; empty: all but those of the last stage.
        reference_quirk: Take the optimiser's step also where no sample is left, as the reference does: its
            momentum goes on moving the tensors.
    """

    optimizer: Optimizer = "sgd"
    margin: float = 0.4
    rho: float = 0.05
    recovery: float = 0.2
    layers: tuple[str, ...] = ()
    reference_quirk: bool = False

    card: ClassVar[Card] = Card(
        paper="arXiv:2302.12400",
        title="Towards Stable Test-Time Adaptation in Dynamic Wild World",
        authors="Niu, Shuaicheng and Wu, Jiaxiang and Zhang, Yifan and Wen, Zhiquan and Chen, Yaofo and "
        "Zhao, Peilin and Tan, Mingkui",
        venue="International Conference on Learning Representations",
        year=2023,
        category="online",
        updates="parameters",
        needs=frozenset({"gradients"}),
        predicts="before",
        model="pocket-gn",
        precision=ALL_PRECISIONS,
        parity="online/sar",
        cost="2 forward + 2 backward",
        notes="Made for models without BatchNorm; two forward and two backward passes per batch.",
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10-c": {"lr": 1e-3},
        "cifar100-c": {"lr": 1e-3},
        "imagenet-c": {"lr": 2.5e-4},
        "imagenet-c-vit": {"lr": 1e-3},
    }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if not all(value >= 0 for value in (self.margin, self.rho, self.recovery)):
            raise BadInputError(
                f"margin, rho and recovery must be 0 or more, got {self.margin}, {self.rho} and {self.recovery}"
            )

    def tensors(self, source: SourceModel) -> Tensors:
        """Return the affine tensors of the norm layers below the last stage, or of those that were named."""
        return lower_norms(source, self.layers)

    def initial_state(self, source: SourceModel) -> State:
        """Return the first state: no average loss yet, which is infinite."""
        loss = torch.full((), math.inf, dtype=source.dtype, device=source.device)
        return {**super().initial_state(source), "loss": loss}

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after one update, or the first state after a collapse, and the first pass's logits."""
        images, margin = inputs.images, self.margin * math.log(source.num_classes)
        assert images is not None

        def reliable(params: Tensors, among: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            logits = source.logits(images, params, norm=batch())
            each = self.uncertainty(logits)
            kept = each.detach() < margin if among is None else among & (each.detach() < margin)
            return each[kept].mean() if kept.any() else each.new_zeros(()), (logits, kept)

        grads, _, (logits, kept) = gradient(reliable, state["params"])
        if kept.any():
            raised = sam_ascent(state["params"], grads, rho=self.rho)
            grads, loss, (_, kept) = gradient(lambda params: reliable(params, kept), raised)
        if kept.any():
            average = loss if state["loss"].isinf() else KEEP * state["loss"] + (1 - KEEP) * loss
            moved = {**self.moved(state, grads), "loss": average}
            return Adapted(self.initial_state(source) if average < self.recovery else moved, logits)
        return Adapted(self.moved(state, grads) if self.reference_quirk else state, logits)
