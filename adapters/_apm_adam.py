# SPDX-License-Identifier: Apache-2.0
"""Adam over the flat weights of many students: as the algorithm reads, and as one pass over memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim.adam import adam as library_adam


class Moments(NamedTuple):
    """Adam's moments (N, P) and the updates so far."""

    first: Tensor
    second: Tensor
    done: int


@dataclass(frozen=True)
class Adam:
    """How a student is fitted.

    Attributes:
        lr: Learning rate.
        betas: Decay rates of the two moments.
        eps: Added to the root of the second moment.
        weight_decay: Coefficient of the L2 term.
        every: Updates after which the rate falls to a tenth, 0 for never.
        leftover: Share of the last gradient that is added to the next, 0 but in the defects of the reference.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    every: int = 0
    leftover: float = 0.0

    def rate(self, done: int) -> float:
        """Return the learning rate after so many updates."""
        return self.lr * 0.1 ** (done // self.every) if self.every else self.lr


class Updater:
    """Take Adam's steps on flat weights in place.

    Args:
        adam: The settings.
        weights: (N, P), changed by every step.
        grads: (N, P), read by every step; the plain form consumes them.
        start: Moments to start from, taken over; None for zero moments.
        fused: Whether each step is the library's one pass over memory, or the algorithm written out.
    """

    def __init__(
        self, adam: Adam, weights: Tensor, grads: Tensor, start: Moments | None, *, fused: bool
    ) -> None:
        self.adam, self.weights, self.grads, self.fused = adam, weights, grads, fused
        begin = start or Moments(torch.zeros_like(weights), torch.zeros_like(weights), 0)
        self.first, self.second, done = begin
        self._count = torch.tensor(float(done), device=weights.device)
        self._last: Tensor | None = None

    def step(self, done: int) -> None:
        """Take one step after so many others."""
        if self.adam.leftover:
            if self._last is not None:
                self.grads.add_(self._last, alpha=self.adam.leftover)
            self._last = self.grads.clone()
        if self.fused:
            self._fused(done)
        else:
            self._plain(done)

    def moments(self, done: int) -> Moments:
        """Return the moments after so many updates; they belong to the updater."""
        return Moments(self.first, self.second, done)

    def _plain(self, done: int) -> None:
        """Take one step as in arXiv:1412.6980, algorithm 1."""
        (one, two), grad = self.adam.betas, self.grads
        size = self.adam.rate(done) / (1 - one ** (done + 1))
        root = math.sqrt(1 - two ** (done + 1))
        if self.adam.weight_decay:
            grad.add_(self.weights, alpha=self.adam.weight_decay)
        self.first.lerp_(grad, 1 - one)
        self.second.mul_(two).addcmul_(grad, grad, value=1 - two)
        scale = torch.sqrt(self.second, out=grad).div_(root).add_(self.adam.eps)
        self.weights.addcdiv_(self.first, scale, value=-size)

    def _fused(self, done: int) -> None:
        library_adam(
            [self.weights], [self.grads], [self.first], [self.second], [], [self._count],
            fused=True, amsgrad=False, beta1=self.adam.betas[0], beta2=self.adam.betas[1],
            lr=self.adam.rate(done), weight_decay=self.adam.weight_decay, eps=self.adam.eps,
            maximize=False,
        )  # fmt: skip
