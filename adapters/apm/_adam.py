# SPDX-License-Identifier: Apache-2.0
"""Adam over the flat weights of many students: as the algorithm reads, and as one pass over memory."""

from __future__ import annotations

import math
from collections.abc import Iterable
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
    """Hyper-parameters of a student's fit.

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


class Parts(NamedTuple):
    """Tensors side by side that Adam moves, each with its gradient, moments and count of steps."""

    weights: list[Tensor]
    grads: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    counts: list[Tensor]

    @classmethod
    def of(cls, weights: Tensor, grads: Tensor, first: Tensor, second: Tensor, done: int) -> Parts:
        """Return tensors (N, ...) one student at a time, whose numbers lie side by side in memory."""
        counts = [torch.tensor(float(done), device=weights.device) for _ in weights]
        return cls(list(weights), list(grads), list(first), list(second), counts)


def step(adam: Adam, parts: Parts, done: int) -> None:
    """Take the library's step in one pass over memory, after so many others."""
    library_adam(
        parts.weights, parts.grads, parts.first, parts.second, [], parts.counts,
        fused=True, amsgrad=False, beta1=adam.betas[0], beta2=adam.betas[1],
        lr=adam.rate(done), weight_decay=adam.weight_decay, eps=adam.eps, maximize=False,
    )  # fmt: skip


class Updater:
    """Take Adam's steps on flat weights in place.

    Args:
        adam: The settings.
        weights: (N, P), changed by every step.
        grads: (N, P), read by every step; the plain form consumes them.
        moments: Taken over and changed by every step.
        fused: Whether each step is the library's one pass over memory, or the algorithm written out.
        runs: Where the weights that are moved lie in a row of ``weights`` and in one of ``grads``, for the library's
            step; None for everywhere.
    """

    def __init__(
        self,
        adam: Adam,
        weights: Tensor,
        grads: Tensor,
        moments: Moments,
        *,
        fused: bool,
        runs: Iterable[tuple[slice, slice]] | None = None,
    ) -> None:
        self.adam, self.weights, self.grads, self.fused = adam, weights, grads, fused
        self.first, self.second, done = moments
        count = torch.tensor(float(done), device=weights.device)
        self._parts = Parts([weights], [grads], [self.first], [self.second], [count])
        if runs is not None:
            each = (
                Parts.of(weights[:, at], grads[:, there], self.first[:, at], self.second[:, at], done)
                for at, there in runs
            )
            self._parts = Parts(
                *([one for part in parts for one in part] for parts in zip(*each, strict=True))
            )
        self._last: Tensor | None = None

    def step(self, done: int) -> None:
        """Take one step after so many others."""
        if self.adam.leftover:
            if self._last is not None:
                self.grads.add_(self._last, alpha=self.adam.leftover)
            self._last = self.grads.clone()
        if self.fused:
            step(self.adam, self._parts, done)
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
