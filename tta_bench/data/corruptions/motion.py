# SPDX-License-Identifier: Apache-2.0
"""Motion blur: a one-sided smear along a random direction."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tta_bench.data.corruptions.base import Arrays, Draws, Setting, stack, to_bytes
from tta_bench.data.corruptions.filters import extend
from tta_bench.data.corruptions.rng import Stream

_NEGLIGIBLE = 1e-6


class Tap(NamedTuple):
    """One sample of the smear: its offset from the output pixel and its weight."""

    row: int
    column: int
    weight: float


@cache
def _one_sided_weights(count: int, sigma: float) -> tuple[float, ...]:
    weights = np.exp(-0.5 * (np.arange(count) / sigma) ** 2)
    return tuple((weights / weights.sum()).tolist())


def smear(angle_deg: float, radius: int, sigma: float, size: tuple[int, int] | None = None) -> list[Tap]:
    """Return the taps of a one-sided Gaussian smear.

    Args:
        angle_deg: Direction; 0 is along a row, 90 down a column.
        radius: The smear has 2 * radius + 1 taps, one pixel apart.
        sigma: Standard deviation in pixels.
        size: (height, width) of the image where the taps end at the first one that leaves it (their weight is
            lost, so an image smaller than the smear darkens); None: no tap is dropped.
    """
    sine, cosine = math.sin(math.radians(angle_deg)), math.cos(math.radians(angle_deg))
    taps = []
    for i, weight in enumerate(_one_sided_weights(2 * radius + 1, sigma)):
        row, column = math.ceil(i * sine - 0.5), math.ceil(i * cosine - 0.5)
        if size and (abs(row) >= size[0] or abs(column) >= size[1]):
            break
        if weight >= _NEGLIGIBLE:
            taps.append(Tap(row, column, weight))
    return taps


def _smear_one(image: Tensor, taps: list[Tap]) -> Tensor:
    """Return the smeared image (C, H, W), as a sum of shifted windows."""
    _, height, width = image.shape
    rows, columns = [tap.row for tap in taps], [tap.column for tap in taps]
    top, left = max(0, -min(rows)), max(0, -min(columns))
    padded = extend(image, top, max(0, *rows), "nearest", 1)
    padded = extend(padded, left, max(0, *columns), "nearest", 2)
    total = torch.zeros_like(image)
    for row, column, weight in taps:
        total.add_(
            padded[:, top + row : top + row + height, left + column : left + column + width], alpha=weight
        )
    return total


def _smear_batch(images: Tensor, taps: list[list[Tap]]) -> Tensor:
    """Return the smeared images (N, C, H, W), gathering one tap of all images at a time."""
    count, _, height, width = images.shape
    device, most = images.device, max(map(len, taps))
    table = np.zeros((3, count, most))
    for i, row in enumerate(taps):
        table[:, i, : len(row)] = np.array(row).T
    rows, columns = (torch.as_tensor(part.astype(np.int64), device=device) for part in table[:2])
    weights = torch.as_tensor(table[2], device=device, dtype=images.dtype)
    rows = (rows[..., None] + torch.arange(height, device=device)).clamp_(0, height - 1)
    columns = (columns[..., None] + torch.arange(width, device=device)).clamp_(0, width - 1)
    flat, total = images.flatten(2), torch.zeros_like(images)
    for tap in range(most):
        index = (rows[:, tap, :, None] * width + columns[:, tap, None, :]).view(count, 1, -1)
        sample = flat.gather(2, index.expand(-1, flat.shape[1], -1)).view_as(images)
        total.add_(sample * weights[:, tap, None, None, None])
    return total


def motion_filter(images: Tensor, taps: list[list[Tap]]) -> Tensor:
    """Return each image smeared by its own taps; the border repeats the edge.

    Args:
        images: (N, C, H, W) floating.
        taps: N lists from `smear`.
    """
    if images.device.type != "cpu":
        return _smear_batch(images, taps)
    return stack([_smear_one(image, row) for image, row in zip(images, taps, strict=True)])


def draw_motion(stream: Stream, setting: Setting) -> Arrays:
    """Draw the direction, uniform within 45 degrees of a row."""
    return {"angle_deg": stream.uniform(-45, 45)}


def motion_blur(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Smear each image along its own direction."""
    radius, sigma = setting.constants
    # The any-size generator stops at the image's size; the 8-bit smear of the first one is rounded.
    original = setting.scale != "imagenet"
    size = None if original else (setting.height, setting.width)
    taps = [smear(angle, int(radius), sigma, size) for angle in draws["angle_deg"].tolist()]
    rounding = setting.options.rounding or ("round" if original else "truncate")
    smeared = motion_filter(images.float(), taps)
    return to_bytes(smeared.add_(0.5) if rounding == "round" else smeared)
