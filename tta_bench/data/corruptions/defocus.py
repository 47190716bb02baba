# SPDX-License-Identifier: Apache-2.0
"""Defocus blur: correlation with a disk whose edge is slightly softened."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import next_fast_len
from scipy.ndimage import correlate1d
from torch import Tensor

from tta_bench.data.corruptions.base import FLOOR_BIAS, Draws, Setting, to_bytes
from tta_bench.data.corruptions.filters import extend, gaussian_weights

Kernel = npt.NDArray[np.float32]

_MAX_SHIFT_REACH: Final = 2


def _soften_columns(kernel: Kernel, weights: Kernel) -> Kernel:
    """Return the kernel smoothed down its columns, rounded as a fused multiply-add of symmetric pairs rounds."""
    reach, rows = len(weights) // 2, len(kernel)
    padded = np.pad(kernel, ((reach, reach), (0, 0)), mode="reflect")
    total: Kernel = kernel * weights[reach]
    for i in range(1, reach + 1):
        pair = padded[reach - i : reach - i + rows] + padded[reach + i : reach + i + rows]
        total = (pair.astype(np.float64) * np.float64(weights[reach + i]) + total).astype(np.float32)
    return total


@cache
def disk_kernel(radius: float, softness: float) -> npt.NDArray[np.float64]:
    """Return the defocus kernel, an odd square array, rounded to float32 at each stage.

    Where the disk touches the edge of its array the mirrored softening makes the sum differ from 1 (1.013 for
    radius 8, 1.011 for radius 10 at softness 0.5); the benchmark has it so. The last bits matter as well: whole
    levels, which flat areas have, stay or fall by one with the sign of the rounding error of the sum.
    """
    small = radius <= 8
    reach = 8 if small else int(radius)
    grid = np.arange(-reach, reach + 1)
    disk = (grid[:, None] ** 2 + grid[None] ** 2 <= radius**2).astype(np.float32)
    disk /= disk.sum()
    weights = gaussian_weights(softness, 1 if small else 2).astype(np.float32)
    rows: Kernel = correlate1d(disk, weights, axis=1, mode="mirror", output=np.float32)
    kernel = _soften_columns(rows, weights).astype(np.float64)
    used = int(np.abs(np.nonzero(kernel)[0] - reach).max())
    return kernel[reach - used : reach + used + 1, reach - used : reach + used + 1]


@cache
def _spectrum(radius: float, softness: float, shape: tuple[int, int], device: torch.device) -> Tensor:
    kernel = torch.as_tensor(disk_kernel(radius, softness))
    spectrum: Tensor = torch.fft.rfft2(kernel, s=shape).conj().resolve_conj()
    return spectrum.to(device, torch.complex64)


def _by_shifts(levels: Tensor, kernel: npt.NDArray[np.float64], height: int, width: int) -> Tensor:
    total = levels.new_zeros(len(levels), 3, height, width)
    for row, column in zip(*np.nonzero(kernel), strict=True):
        total.add_(levels[..., row : row + height, column : column + width], alpha=float(kernel[row, column]))
    return to_bytes(total, bias=0)


def _by_transform(levels: Tensor, spectrum: Tensor, bias: float, height: int, width: int) -> Tensor:
    result = torch.empty(len(levels), 3, height, width, dtype=torch.uint8, device=levels.device)
    # One transform per image: a batched transform may round differently for another batch size.
    for image, target in zip(levels, result, strict=True):
        product = torch.fft.rfft2(image).mul_(spectrum)
        target.copy_(to_bytes(torch.fft.irfft2(product, s=image.shape[1:])[:, :height, :width], bias))
    return result


def defocus_blur(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Correlate every channel with the softened disk; the border mirrors without repeating the edge."""
    height, width = setting.height, setting.width
    radius, softness = setting.constants
    kernel = disk_kernel(radius, softness)
    reach = len(kernel) // 2
    if reach <= _MAX_SHIFT_REACH:
        levels = extend(extend(images.double(), reach, reach, "mirror", 2), reach, reach, "mirror", 3)
        return _by_shifts(levels, kernel, height, width)
    # The transform is periodic: beyond the reach of the kernel any samples will do to fill up to a fast length.
    shape = (next_fast_len(height + 2 * reach, real=True), next_fast_len(width + 2 * reach, real=True))
    levels = extend(images.float(), reach, shape[0] - height - reach, "mirror", 2)
    levels = extend(levels, reach, shape[1] - width - reach, "mirror", 3)
    bias = FLOOR_BIAS if kernel.sum() >= 1 else -FLOOR_BIAS
    return _by_transform(levels, _spectrum(radius, softness, shape, images.device), bias, height, width)
