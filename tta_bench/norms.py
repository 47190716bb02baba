# SPDX-License-Identifier: Apache-2.0
"""Normalisation rules: what a BatchNorm layer does with the statistics it stores and those of the batch.

A rule is a pure function of one layer's input and its stored tensors. The source model's BatchNorm layers ask
the rule of the current call, so one step may use several rules and no rule can leave a trace in the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def _fixed(x: Tensor, stats: Stats, layer: NormLayer) -> Tensor:
    """Normalise by statistics without a gradient, in one pass of the library."""
    return F.batch_norm(x, stats.mean, stats.var, layer.weight, layer.bias, eps=layer.eps)


def running() -> NormRule:
    """Return the rule of a model in evaluation mode: normalise by the stored statistics."""

    def rule(x: Tensor, layer: NormLayer) -> tuple[Tensor, None]:
        return _fixed(x, Stats(layer.mean, layer.var), layer), None

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
        y = _fixed(x, fixed, layer) if detach else _normalise(x, mixed, layer)
        return y, fixed if store else None

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
        return _per_instance(x, Stats(mean, variance), layer), kept

    return rule


def _shrunk(x: Tensor, limit: Tensor) -> Tensor:
    return (x - limit).relu() - (-x - limit).relu()


def unmixed(
    components: Mapping[str, Tensor], share: Tensor, temperature: float = 0.07, *, between: bool = False
) -> NormRule:
    """Return the rule that normalises each instance by a mixture of components, which all move a little towards it.

    With the mean a_i and variance s_i of instance i and the likeness ``p_ik = softmax_k(cos(a_i, M_k) / T)``, component
    k as i sees it has mean ``(1 - p) M_k + p a_i`` and variance ``(1 - p) V_k + p s_i``; the instance is normalised by
    the moments of their even mixture. Then ``M_k += m mean_i p (a_i - M_k)`` and ``V_k += m mean_i p (s_i - V_k)``,
    ``m = 1 - (1 - momentum)^share`` of the layer's momentum; they are handed back. No gradient flows through p.
    Layers of vectors, which have no variance within an instance, normalise by their stored statistics.

    Args:
        components: Means (K, C) and variances (K, C) of each layer, as ``<layer>.running_mean`` and ``.running_var``.
        share: 0-d, configured batch size over the one that the layer's momentum is meant for.
        temperature: T.
        between: Whether a component's variance also has the spread ``p (1 - p) (a_i - M_k)^2`` of its two parts.

    Source: UnMix-TNS, ICLR 2024, eqs. 4 to 10; without ``between`` as in its published code.
    """

    def rule(x: Tensor, layer: NormLayer) -> tuple[Tensor, Stats | None]:
        if x.ndim == 2:
            return running()(x, layer)
        means, variances = (components[f"{layer.name}.running_{leaf}"] for leaf in ("mean", "var"))
        var, mean = torch.var_mean(x.flatten(2), -1, correction=0)
        a, s = mean[:, None], var[:, None]  # (N, 1, C)
        unit = F.normalize(mean.detach(), dim=-1) @ F.normalize(means, dim=-1).T
        p = (unit / temperature).softmax(-1)[..., None]  # (N, K, 1)
        seen = means + p * (a - means)
        spread = variances + p * (s - variances)
        if between:
            spread = spread + p * (1 - p) * (a - means).square()
        mixed = seen.mean(1)
        stats = Stats(mixed, (spread + seen.square()).mean(1) - mixed.square())
        m = (1 - (1 - layer.momentum) ** share).to(x.dtype)
        moved = Stats(
            means + m * (p * (a.detach() - means)).mean(0),
            variances + m * (p * (s.detach() - variances)).mean(0),
        )
        return _per_instance(x, stats, layer), moved

    return rule


def _per_instance(x: Tensor, stats: Stats, layer: NormLayer) -> Tensor:
    """Normalise each instance of (N, C, *) by statistics of its own (N, C)."""
    scale = (stats.var + layer.eps).rsqrt()
    if layer.weight is not None:
        scale = scale * layer.weight
    shift = -stats.mean * scale if layer.bias is None else layer.bias - stats.mean * scale
    shape = (*stats.mean.shape, *(1,) * (x.ndim - 2))
    return x * scale.view(shape) + shift.view(shape)
