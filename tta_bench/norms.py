# SPDX-License-Identifier: Apache-2.0
"""Normalisation rules: what a BatchNorm layer does with the statistics it stores and those of the batch.

A rule is a pure function of one layer's input and its stored tensors. The source model's BatchNorm layers ask
the rule of the current call, so one step may use several rules and no rule can leave a trace in the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class NormLayer(NamedTuple):
    """One BatchNorm layer as a rule sees it; every tensor is (C,)."""

    name: str
    mean: Tensor
    var: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float
    momentum: float


class Stats(NamedTuple):
    """Statistics that a rule hands back, detached, each (C,)."""

    mean: Tensor
    var: Tensor


NormRule = Callable[[Tensor, NormLayer], tuple[Tensor, Stats | None]]
"""Map an input (N, C, *) and its layer to the normalised input and, if the rule updates them, new statistics."""


def _reduced(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


def _moments(x: Tensor, *, unbiased: bool) -> Stats:
    """Return mean and variance over everything but the channels; one value per channel has variance 0."""
    count = x.numel() // x.shape[1]
    var, mean = torch.var_mean(x, dim=_reduced(x), correction=1 if unbiased and count > 1 else 0)
    return Stats(mean, var)


def _normalise(x: Tensor, stats: Stats, layer: NormLayer) -> Tensor:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    scale = torch.rsqrt(stats.var + layer.eps)
    if layer.weight is not None:
        scale = scale * layer.weight
    y = (x - stats.mean.view(shape)) * scale.view(shape)
    return y if layer.bias is None else y + layer.bias.view(shape)


def _batch_norm(x: Tensor, layer: NormLayer) -> Tensor:
    """Normalise by biased batch statistics; the library refuses one value per channel, where they are (x, 0)."""
    if x.numel() == x.shape[1]:
        return _normalise(x, _moments(x, unbiased=False), layer)
    return F.batch_norm(x, None, None, layer.weight, layer.bias, training=True, eps=layer.eps)


def running() -> NormRule:
    """Return the rule of a model in evaluation mode: normalise by the stored statistics."""

    def rule(x: Tensor, layer: NormLayer) -> tuple[Tensor, None]:
        return F.batch_norm(x, layer.mean, layer.var, layer.weight, layer.bias, eps=layer.eps), None

    return rule


def batch() -> NormRule:
    """Return the rule that normalises by the mean and biased variance of the batch.

    Source: BN adaptation, arXiv:2006.10963 and arXiv:2006.16971; the forward of TENT, arXiv:2006.10726.
    """

    def rule(x: Tensor, layer: NormLayer) -> tuple[Tensor, None]:
        return _batch_norm(x, layer), None

    return rule


def blend(alpha: float, *, unbiased: bool = True, detach: bool = False, store: bool = False) -> NormRule:
    """Return the rule that mixes stored and batch statistics, ``(1 - alpha) * stored + alpha * batch``.

    Args:
        alpha: Share of the batch, in [0, 1].
        unbiased: Whether the batch variance divides by n - 1.
        detach: Whether the mixed statistics carry no gradient.
        store: Whether the mixed statistics are handed back, to be stored by the method.

    Source: arXiv:2006.16971 (alpha = n / (N + n)); RoTTA's robust normalisation, arXiv:2303.13899.
    """

    def rule(x: Tensor, layer: NormLayer) -> tuple[Tensor, Stats | None]:
        seen = _moments(x, unbiased=unbiased)
        mixed = Stats(
            (1 - alpha) * layer.mean + alpha * seen.mean, (1 - alpha) * layer.var + alpha * seen.var
        )
        fixed = Stats(mixed.mean.detach(), mixed.var.detach())
        return _normalise(x, fixed if detach else mixed, layer), fixed if store else None

    return rule


def track(momentum: float | None = None) -> NormRule:
    """Return the rule of a model in training mode: normalise by the batch, hand back the moving average.

    Args:
        momentum: Share of the batch in the moving average; None takes the layer's own.
    """

    def rule(x: Tensor, layer: NormLayer) -> tuple[Tensor, Stats]:
        share = layer.momentum if momentum is None else momentum
        seen = _moments(x.detach(), unbiased=True)
        kept = Stats(
            (1 - share) * layer.mean.detach() + share * seen.mean,
            (1 - share) * layer.var.detach() + share * seen.var,
        )
        return _batch_norm(x, layer), kept

    return rule


def instance_aware(k: float, momentum: float | None = None) -> NormRule:
    """Return the rule of instance-aware BatchNorm: each instance's statistics where they are far from the base.

    Differences to the base within ``k`` of their own standard deviations are taken as chance and dropped. Layers that
    see one position normalise by the base alone.

    Args:
        k: Deviations within which an instance counts as typical.
        momentum: Share of the batch in the stored statistics, which are handed back; the base is then the batch.
            None leaves them as they are, and they are the base.

    Source: NOTE, arXiv:2208.05117, eqs. 3 to 6.
    """
    plain = running() if momentum is None else track(momentum)

    def rule(x: Tensor, layer: NormLayer) -> tuple[Tensor, Stats | None]:
        size = x[0, 0].numel()
        if size <= 1:
            return plain(x, layer)
        base, kept = Stats(layer.mean, layer.var), None
        if momentum is not None:
            variance, mean = torch.var_mean(x, [0, *range(2, x.ndim)])
            base = Stats(mean, variance)
            kept = Stats(
                layer.mean.lerp(mean.detach(), momentum), layer.var.lerp(variance.detach(), momentum)
            )
        variance, mean = torch.var_mean(x.flatten(2), -1)
        spread = base.var + layer.eps
        mean = base.mean + _shrunk(mean - base.mean, k * (spread / size).sqrt())
        variance = (base.var + _shrunk(variance - base.var, k * spread * (2 / (size - 1)) ** 0.5)).relu()
        scale = (variance + layer.eps).rsqrt()
        if layer.weight is not None:
            scale = scale * layer.weight
        shift = -mean * scale if layer.bias is None else layer.bias - mean * scale
        shape = (*mean.shape, *(1,) * (x.ndim - 2))
        return x * scale.view(shape) + shift.view(shape), kept

    return rule


def _shrunk(x: Tensor, limit: Tensor) -> Tensor:
    return (x - limit).relu() - (-x - limit).relu()
