# SPDX-License-Identifier: Apache-2.0
"""Shared by methods that tune the norm layers of a CLIP-like model on a batch: steps, losses, and a last pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.method import Adapted, Inputs, Need, SourceModel, State
from tta_bench.norms import batch
from tta_bench.optim import Tensors, gradient

from ._descent import Descending
from ._texts import text_side

NEEDS: frozenset[Need] = frozenset({"text", "gradients"})
SHARPNESS = 0.01
Loss = Callable[[Tensors], Tensor]


class Descent(NamedTuple):
    """The results of the steps on one batch.

    Attributes:
        state: After the last step.
        losses: (steps,), each before its step.
    """

    state: State
    losses: Tensor


@dataclass(frozen=True)
class VisualNorms(Descending):
    """Tune the affine tensors of the image tower's norm layers on each batch; methods say on which loss.

    BatchNorm layers normalise by the batch. The prediction is one more pass after the last step.

    Attributes:
        steps: Updates for each batch.
    """

    steps: int = 10

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.steps < 1:
            raise BadInputError(f"steps must be 1 or more, got {self.steps}")

    def loss(self, source: SourceModel, features: Tensor) -> Tensor:
        """Return the loss of raw features (N, D)."""
        raise NotImplementedError

    def tune(self, source: SourceModel, state: State, images: Tensor) -> Descent:
        """Take the steps on a batch."""
        losses = []
        for _ in range(self.steps):
            state, value = self.stepped(
                state, lambda params: self.loss(source, encoded(source, images, params))
            )
            losses.append(value)
        return Descent(state, torch.stack(losses))

    def stepped(self, state: State, loss: Loss) -> tuple[State, Tensor]:
        """Return the state after one step on a loss of the adapted tensors, and the loss before it."""

        def valued(params: Tensors) -> tuple[Tensor, tuple[()]]:
            return loss(params), ()

        grads, value, _ = gradient(valued, state["params"])
        return self.moved(state, grads), value

    def adapt(self, source: SourceModel, state: State, inputs: Inputs) -> Adapted:
        """Return the state after the steps."""
        assert inputs.images is not None
        return Adapted(self.tune(source, state, inputs.images).state)

    def predict(self, source: SourceModel, state: State, inputs: Inputs) -> Tensor:
        """Return the logits (N, K) under the adapted tensors."""
        assert inputs.images is not None
        return source.logits(inputs.images, state["params"], norm=batch())


def encoded(source: SourceModel, images: Tensor, params: Tensors) -> Tensor:
    """Return the raw features (N, D) of images under adapted tensors of the image tower."""
    return source.encode(images, params, norm=batch())


def agreement(source: SourceModel, features: Tensor, texts: Tensor, target: Tensor | None = None) -> Tensor:
    """Return how far images are from their captions, by the likenesses within the batch.

    ``Q = softmax(((x x^T + u u^T) / 2) / 0.01)`` of unit image features x and captions u, ``Z = s x u^T``:
    ``mean_i -sum_j Q_ji ln softmax_j(Z_ij)``. Gradients flow through Q too.

    Args:
        source: Whose scale s is.
        features: (N, D) raw, of the images.
        texts: (N, D) unit, of one caption each.
        target: (N, N) likenesses in place of the mean of the two.

    Source: CLIPArTT, arXiv:2405.00754, eqs. 4 to 6.
    """
    x = F.normalize(features, dim=-1)
    likeness = (x @ x.T + texts @ texts.T) / 2 if target is None else target
    wanted = (likeness / SHARPNESS).softmax(-1)
    return -(wanted.T * (text_side(source).scale * x @ texts.T).log_softmax(-1)).sum(-1).mean()
