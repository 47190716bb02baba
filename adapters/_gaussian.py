# SPDX-License-Identifier: Apache-2.0
"""Estimates of one Gaussian for each class, and what they say of a feature."""

from __future__ import annotations

import torch
from torch import Tensor


def merged(mean: Tensor, count: Tensor, total: Tensor, weight: Tensor) -> Tensor:
    """Return means after new values: ``(count mean + total) / (count + weight)``.

    Args:
        mean: (C, ...).
        count: (C,) weight of the values so far.
        total: (C, ...) weighted sum of the new values.
        weight: (C,) their weight.
    """
    shape = (-1, *[1] * (mean.ndim - 1))
    return (count.view(shape) * mean + total) / (count + weight).view(shape)


def discriminants(x: Tensor, means: Tensor, precision: Tensor) -> Tensor:
    """Return ``x.P m - m.P m / 2``: log-densities (N, C) under one shared precision, less what classes share.

    Args:
        x: (N, D).
        means: (C, D).
        precision: (D, D), symmetric.
    """
    mapped = means @ precision
    return x @ mapped.T - 0.5 * (mapped * means).sum(-1)


def scatter(x: Tensor, weights: Tensor, means: Tensor) -> Tensor:
    """Return ``sum_n w_nc (x_n - m_c)(x_n - m_c)^T`` (C, D, D) of x (N, D), weights (N, C) and means (C, D)."""
    apart = x.unsqueeze(0) - means.unsqueeze(1)  # (C, N, D)
    return (apart * weights.T.unsqueeze(-1)).transpose(1, 2) @ apart


def spread(x: Tensor, weights: Tensor, means: Tensor) -> Tensor:
    """Return ``sum_n w_nc (x_n - m_c)^2`` (C, D): the diagonals of `scatter`, never negative."""
    total, mass = weights.T @ x, weights.sum(0).unsqueeze(-1)
    return (weights.T @ x.square() - 2 * means * total + mass * means.square()).clamp(min=0)


def diagonal_log_density(x: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """Return ``-sum_d (x_d - m_cd)^2 / (2 S_cd)`` (N, C) of x (N, D), means and variances (C, D)."""
    precision = 1 / variances
    mapped = means * precision
    squared = x.square() @ precision.T - 2 * x @ mapped.T + (means * mapped).sum(-1)
    return -0.5 * squared


def pooled_precision(mean_covariance: Tensor, eps: float) -> Tensor:
    """Return the inverse (D, D) of a covariance that is shrunk towards the identity by ``eps``."""
    identity = torch.eye(len(mean_covariance), dtype=mean_covariance.dtype, device=mean_covariance.device)
    inverse: Tensor = torch.linalg.inv((1 - eps) * mean_covariance + eps * identity)
    return inverse
