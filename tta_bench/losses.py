# SPDX-License-Identifier: Apache-2.0
"""Losses and scores as pure functions of logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def entropy(logits: Tensor) -> Tensor:
    """Return the Shannon entropy of the softmax of each row.

    Args:
        logits: (..., K), any scale.

    Returns:
        (...) nats.
    """
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def opinion_entropy(logits: Tensor, classes: float, eps: float = 1e-7) -> Tensor:
    """Return the entropy of the opinion that each row of logits stands for: beliefs in the classes, and a doubt.

    With ``S = sum_c exp(z_c) + K`` the beliefs are ``exp(z_c) / S`` and the doubt is ``K / S``; `eps` is added to
    each. The gradient has no part along the logits, so that a step does not change their length.

    Args:
        logits: (..., C), any scale.
        classes: K, the number of classes that the opinion is about.
        eps: Added to every entry before the logarithm.

    Returns:
        (...) nats, at most about ln(C + 1).

    Source: COME, arXiv:2410.10894, eqs. 6 to 9.
    """
    length = logits.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(logits.dtype).tiny)
    z = logits / length * length.detach()
    top = z.detach().amax(-1, keepdim=True).clamp(min=0)
    parts = torch.cat([(z - top).exp(), classes * (-top).exp()], -1)
    q = parts / parts.sum(-1, keepdim=True) + eps
    return -(q * q.log()).sum(-1)


def soft_cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    """Return the cross-entropy of each row's prediction with the softmax of target logits.

    Args:
        target: (..., K) logits; detach them where they are to be constant.
        logits: (..., K).

    Returns:
        (...) nats.
    """
    return -(target.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def pseudo_label_loss(logits: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean cross-entropy of chosen rows with their own most likely class; 0 if none is chosen.

    Args:
        logits: (N, K).
        chosen: (N,) bool.
    """
    each = -logits.log_softmax(-1).amax(-1)
    return (each * chosen).sum() / chosen.sum().clamp(min=1)


def robust_pseudo_label_loss(logits: Tensor, q: float) -> Tensor:
    """Return the generalised cross-entropy ``(1 - p_y^q) / q`` of each row with its most likely class y.

    Args:
        logits: (..., K).
        q: In (0, 1]; towards 0 it becomes the cross-entropy, at 1 it is bounded by 1.

    Source: arXiv:1805.07836, eq. 6, with pseudo-labels as in arXiv:2104.12928.
    """
    return (1 - logits.softmax(-1).amax(-1) ** q) / q


def mean_log_probabilities(logits: Tensor) -> Tensor:
    """Return the logarithm of the mean softmax over views.

    Args:
        logits: (..., V, K).

    Returns:
        (..., K) nats, finite also where a probability underflows to 0.
    """
    log_p = logits.log_softmax(-1)
    mean = log_p.logsumexp(-2) - math.log(log_p.shape[-2])
    return mean.clamp(min=torch.finfo(logits.dtype).min)


def marginal_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of the mean prediction over the views of each image.

    Args:
        logits: (..., V, K).

    Returns:
        (...) nats.

    Source: MEMO, arXiv:2110.09506, eq. 2.
    """
    log_p = mean_log_probabilities(logits)
    return -(log_p.exp() * log_p).sum(-1)


def diversity(logits: Tensor, eps: float = 1e-5) -> Tensor:
    """Return the negative entropy ``sum_c m_c ln(m_c + eps)`` of the mean prediction m of a batch.

    Args:
        logits: (N, K).
        eps: Added inside the logarithm.

    Source: SHOT, arXiv:2002.08546, eq. 4.
    """
    mean = logits.softmax(-1).mean(0)
    return (mean * (mean + eps).log()).sum()


def symmetric_cross_entropy(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean of the cross-entropies of two predictions with each other; gradients flow through both.

    Args:
        first: (..., K) logits.
        second: (..., K) logits.

    Returns:
        (...) nats.
    """
    return 0.5 * soft_cross_entropy(first, second) + 0.5 * soft_cross_entropy(second, first)


def soft_likelihood_ratio(logits: Tensor, clip: float = 0.99, eps: float = 1e-5) -> Tensor:
    """Return the negative expected log-odds ``-sum_c p_c ln(p_c / (1 - p_c) + eps)`` of each row.

    Args:
        logits: (..., K).
        clip: Largest probability, so that certain predictions give no gradient.
        eps: Added inside the logarithm.

    Source: ROID, arXiv:2306.00650, eq. 6.
    """
    p = logits.softmax(-1).clamp(0, clip)
    return -(p * (p / (1 - p) + eps).log()).sum(-1)


def contrastive(features: Tensor, temperature: float) -> Tensor:
    """Return the mean contrastive loss of features that come in several views of each sample.

    Args:
        features: (V, N, D) unit vectors; the V views of one sample attract, all others repel.
        temperature: Divides the cosines.

    Source: supervised contrastive learning, arXiv:2004.11362, eq. 2, with each sample as its own class.
    """
    views, count = features.shape[:2]
    flat = features.flatten(0, 1)
    logits = flat @ flat.T / temperature
    own = torch.eye(views * count, dtype=torch.bool, device=flat.device)
    positive = torch.eye(count, dtype=torch.bool, device=flat.device).repeat(views, views) & ~own
    log_p = logits - logits.masked_fill(own, -torch.inf).logsumexp(-1, keepdim=True)
    return -(log_p * positive).sum(-1).mean() / (views - 1)


def most_confident(logits: Tensor, share: float) -> Tensor:
    """Return which views of each image have the least entropy.

    Args:
        logits: (..., V, K).
        share: Of the views to keep, ``int(V * share)`` of them and one at least.

    Returns:
        (..., k) positions by ascending entropy; of equal entropies the lower position comes first.

    Source: TPT, arXiv:2209.07511, section 3.2.
    """
    return least(entropy(logits), share)


def least(entropies: Tensor, share: float) -> Tensor:
    """Return the positions (..., k) of the least entropies (..., V), as `most_confident` does from logits."""
    count = max(1, int(entropies.shape[-1] * share))
    return entropies.argsort(dim=-1, stable=True)[..., :count]


def chosen_views(values: Tensor, positions: Tensor) -> Tensor:
    """Return the rows (..., k, D) of chosen views, from those of all (..., V, D) and positions (..., k)."""
    return values.gather(-2, positions.unsqueeze(-1).expand(*positions.shape, values.shape[-1]))


def dispersion(features: Tensor) -> Tensor:
    """Return the mean distance of class features (K, D) from their mean.

    Source: C-TPT, arXiv:2403.14119, eq. 3.
    """
    distances: Tensor = torch.linalg.vector_norm(features - features.mean(0), dim=-1)
    return distances.mean()


def nearest_angle(features: Tensor, clamp: float = 0.99999) -> Tensor:
    """Return the mean angle, in radians, between each class feature and its nearest other one.

    Args:
        features: (K, D) unit rows.
        clamp: Cosines beyond it count as it and give no gradient.

    Source: A-TPT, arXiv:2510.26441.
    """
    own = torch.eye(len(features), dtype=torch.bool, device=features.device)
    nearest = (features @ features.T).masked_fill(own, -1).amax(-1)
    return nearest.clamp(-clamp, clamp).arccos().mean()


def correlation_norm(features: Tensor) -> Tensor:
    """Return by how much the rows of the Gram matrix of unit class features (K, D) are longer than 1, on average.

    It is 0 exactly where all features are orthogonal.

    Source: O-TPT, arXiv:2503.12096, whose Householder reflections give this value and its gradient.
    """
    norms: Tensor = torch.linalg.vector_norm(features @ features.T, dim=-1)
    return (norms - 1).abs().mean()


def reward_loss(logits: Tensor, rewards: Tensor, classes: Tensor) -> Tensor:
    """Return the policy-gradient loss ``mean r * CE`` of sampled classes.

    Args:
        logits: (..., V, K).
        rewards: (..., V, k) of the sampled classes, constants; below 0 pushes a class down.
        classes: (..., V, k) the sampled classes.

    Returns:
        (...) mean over views and samples.

    Source: RLCF, arXiv:2305.18010, eq. 4.
    """
    log_p = logits.log_softmax(-1).gather(-1, classes)
    return -(rewards * log_p).mean((-2, -1))
