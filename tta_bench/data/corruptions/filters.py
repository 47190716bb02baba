# SPDX-License-Identifier: Apache-2.0
"""Separable Gaussian filters with the border rules of the published generators.

Every function gives an image the same result whatever batch it stands in: small kernels are sums of shifted
copies, large ones one matrix product per image.
"""

from __future__ import annotations

from functools import cache
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Border: TypeAlias = Literal["nearest", "reflect", "mirror"]
_PAD_MODE: Final[dict[Border, str]] = {"nearest": "edge", "reflect": "symmetric", "mirror": "reflect"}
_FEW_SHIFTS: Final = 5
_SMALL_IMAGE: Final = 64 * 64


@cache
def gaussian_weights(sigma: float, radius: int) -> npt.NDArray[np.float64]:
    """Return 2 * radius + 1 sampled Gaussian weights with sum 1."""
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def extend(x: Tensor, low: int, high: int, border: Border, dim: int) -> Tensor:
    """Return x with samples added at both ends of one axis.

    Args:
        x: Any tensor.
        low: Samples to add before the first; less than the size of the axis.
        high: Samples to add after the last; less than the size of the axis.
        border: ``nearest`` repeats the edge, ``reflect`` is d c b a | a b c d, ``mirror`` is d c b | a b c d.
        dim: The axis.
    """
    size = x.shape[dim]
    if border == "nearest":
        shape = list(x.shape)
        shape[dim] = low
        before = x.narrow(dim, 0, 1).expand(shape)
        shape[dim] = high
        after = x.narrow(dim, size - 1, 1).expand(shape)
    else:
        skip = int(border == "mirror")
        before = x.narrow(dim, skip, low).flip(dim)
        after = x.narrow(dim, size - high - skip, high).flip(dim)
    return torch.cat((before, x, after), dim)


def _filter_shifted(x: Tensor, weights: npt.NDArray[np.float64], border: Border, dim: int) -> Tensor:
    radius, size = len(weights) // 2, x.shape[dim]
    padded = extend(x, radius, radius, border, dim)
    total = padded.narrow(dim, radius, size) * float(weights[radius])
    pair = torch.empty_like(total)
    for reach in range(1, radius + 1):
        torch.add(
            padded.narrow(dim, radius - reach, size), padded.narrow(dim, radius + reach, size), out=pair
        )
        total.add_(pair, alpha=float(weights[radius + reach]))
    return total


@cache
def _filter_matrix(
    size: int, sigma: float, radius: int, border: Border, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the (size, size) matrix that filters a column vector, borders included."""
    matrix = np.zeros((size, size))
    source = np.pad(np.arange(size), radius, mode=_PAD_MODE[border])  # type: ignore[call-overload]
    for tap, weight in enumerate(gaussian_weights(sigma, radius)):
        matrix[np.arange(size), source[tap : tap + size]] += weight
    return torch.as_tensor(matrix).to(device, dtype)


def _filter_product(x: Tensor, sigma: float, radius: int, border: Border, dim: int) -> Tensor:
    """Filter by one matrix product per image: a batched product may depend on the batch size."""
    # Lower-precision products may be switched on for a CUDA device; float64 is out of their reach.
    dtype = torch.float64 if x.is_cuda else x.dtype
    matrix = _filter_matrix(x.shape[dim], sigma, radius, border, dtype, x.device)
    images = x.to(dtype)
    result = torch.empty_like(images)
    for image, target in zip(images, result, strict=True):
        if dim == x.ndim - 1:
            torch.matmul(image, matrix.T, out=target)
        else:
            torch.matmul(matrix, image, out=target)
    return result.to(x.dtype)


def _shifts_are_cheaper(height: int, width: int, radius: int) -> bool:
    """Say whether to add shifted copies; only the image's own size may decide, never the batch."""
    return radius < min(height, width) and (radius <= _FEW_SHIFTS or height * width <= _SMALL_IMAGE)


def gaussian_filter(
    x: Tensor,
    sigma: float | tuple[float, float],
    border: Border = "nearest",
    truncate: float = 4.0,
) -> Tensor:
    """Return x smoothed by a sampled Gaussian over its last two axes.

    Args:
        x: (N, C, H, W), floating.
        sigma: Standard deviation in pixels, or a pair (vertical, horizontal); 0 leaves the axis as it is.
        border: Border rule, see `extend`.
        truncate: Radius of the kernel in standard deviations.
    """
    pair = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    for dim, deviation in zip((x.ndim - 2, x.ndim - 1), pair, strict=True):
        radius = int(truncate * deviation + 0.5)
        if radius == 0:
            continue
        if _shifts_are_cheaper(x.shape[-2], x.shape[-1], radius):
            x = _filter_shifted(x, gaussian_weights(deviation, radius), border, dim)
        else:
            x = _filter_product(x, deviation, radius, border, dim)
    return x
