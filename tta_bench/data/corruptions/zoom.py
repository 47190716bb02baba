# SPDX-License-Identifier: Apache-2.0
"""Zoom blur: the mean of an image and its enlargements about the centre."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from tta_bench.data.corruptions.base import Draws, Setting, to_bytes


def zoom_factors(count: int, step: float) -> list[float]:
    """Return the factors 1, 1 + step, ..., with the float64 values that a range with that step has."""
    increment = (1 + step) - 1
    return [1 + k * increment for k in range(count)]


def centre_part(size: int, factor: float) -> slice:
    """Return the central part of an axis that an enlargement by a factor shows."""
    part = math.ceil(size / factor)
    start = (size - part) // 2
    return slice(start, start + part)


def enlarge(centre: Tensor, factor: float) -> Tensor:
    """Return the central part of an image enlarged, corner pixels aligned.

    Args:
        centre: (N, C, h, w), cut out by `centre_part`.
        factor: Enlargement.
    """
    size = (round(centre.shape[2] * factor), round(centre.shape[3] * factor))
    enlarged: Tensor = interpolate(centre, size=size, mode="bilinear", align_corners=True)
    return enlarged


def cut(x: Tensor, setting: Setting) -> Tensor:
    """Return (N, C, height, width) of a larger image: its corner at imagenet scale, its centre elsewhere."""
    top = left = 0
    if setting.scale != "imagenet":
        top, left = (x.shape[2] - setting.height) // 2, (x.shape[3] - setting.width) // 2
    return x[..., top : top + setting.height, left : left + setting.width]


@cache
def _positions(size: int, factor: float, centred: bool, device: torch.device) -> Tensor:
    """Return, for each sample of an enlarged axis that is kept, its place in the image, from -1 to 1."""
    part = centre_part(size, factor)
    length = part.stop - part.start
    enlarged = round(length * factor)
    first = (enlarged - size) // 2 if centred else 0
    steps = torch.arange(first, first + size, dtype=torch.float64)
    places = part.start + steps * ((length - 1) / (enlarged - 1))
    spread: Tensor = places * (2 / (size - 1)) - 1
    return spread.to(device, torch.float32)


@cache
def _grid(height: int, width: int, factor: float, centred: bool, device: torch.device) -> Tensor:
    rows = _positions(height, factor, centred, device)
    columns = _positions(width, factor, centred, device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), 2)[None]


def zoom_blur(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Average the image with its enlargements by factors from 1 up."""
    count, step = setting.constants
    centred = setting.scale != "imagenet"
    levels = images.float()
    total = levels * 2  # the image itself, and the factor 1
    for factor in zoom_factors(int(count), step)[1:]:
        grid = _grid(setting.height, setting.width, factor, centred, images.device)
        grid = grid.expand(len(images), -1, -1, -1)
        total.add_(grid_sample(levels, grid, "bilinear", "border", align_corners=True))
    return to_bytes(total.div_(count + 1))
