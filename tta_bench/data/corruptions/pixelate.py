# SPDX-License-Identifier: Apache-2.0
"""Pixelate: area averages on a coarse grid, shown at the old size."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from tta_bench.data.corruptions.base import Draws, Setting

_WEIGHT_BITS: Final = 22


@cache
def _box_weights(size: int, target: int, device: torch.device) -> Tensor:
    """Return the (size, target) fixed-point weights of one pass of the area average, as float64 integers."""
    scale = size / target
    matrix = np.zeros((size, target))
    for i in range(target):
        centre = (i + 0.5) * scale
        low = max(0, int(centre - scale / 2 + 0.5))
        taps = np.arange(low, min(size, int(centre + scale / 2 + 0.5)))
        position = (taps - centre + 0.5) * (1 / scale)  # a division would round differently
        kept = taps[(position > -0.5) & (position <= 0.5)]
        matrix[kept, i] = int(2**_WEIGHT_BITS / len(kept) + 0.5)
    return torch.as_tensor(matrix, device=device)


def _pass(x: Tensor, weights: Tensor) -> Tensor:
    # Products and sums are whole numbers below 2 ** 53, so any order of summation gives the same.
    return (x @ weights).add_(2 ** (_WEIGHT_BITS - 1)).div_(2**_WEIGHT_BITS).floor_().clamp_(0, 255)


def shrink_integer(images: Tensor, height: int, width: int) -> Tensor:
    """Return the area average (N, 3, height, width) uint8, rounded after each pass, on any device.

    The columns are averaged first. Pillow may turn the order round for images more than twice as tall as wide,
    where a rounded level can differ then.
    """
    narrow = _pass(images.double(), _box_weights(images.shape[3], width, images.device))
    low = _pass(narrow.transpose(2, 3), _box_weights(images.shape[2], height, images.device))
    return low.transpose(2, 3).to(torch.uint8)


@cache
def _nearest(target: int, size: int) -> npt.NDArray[np.intp]:
    """Return, for each of `target` samples, the one of `size` samples that Pillow repeats there.

    Pillow adds up the step from sample to sample, and its rounding errors decide where two are equally near.
    """
    step = size / target
    return (
        np.add.accumulate(np.array([step * 0.5, *[step] * (target - 1)])).astype(np.intp).clip(max=size - 1)
    )


def _groups(count: int) -> Iterator[tuple[slice, str]]:
    """Yield the planes to put through the codec together, four at a time, and the name of its pixel format."""
    for start in range(0, count - count % 4, 4):
        yield slice(start, start + 4), "CMYK"
    if count % 4 == 3:
        yield slice(count - 3, count), "RGB"
    else:
        yield from ((slice(i, i + 1), "L") for i in range(count - count % 4, count))


def pixelate_planes(planes: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return planes (P, H, W) shrunk to (height, width) and enlarged again, with the area average of Pillow."""
    rows, columns = _nearest(planes.shape[1], height), _nearest(planes.shape[2], width)
    result = np.empty_like(planes)
    for group, mode in _groups(len(planes)):
        image = Image.merge(mode, [Image.fromarray(plane) for plane in planes[group]])
        small = np.asarray(image.resize((width, height), Image.Resampling.BOX)).reshape(height, width, -1)
        wide = small.transpose(2, 0, 1).reshape(-1, width)[:, columns].reshape(-1, height, len(columns))
        np.take(wide, rows, axis=1, out=result[group], mode="clip")
    return result


def pixelate(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Shrink by area averages and enlarge by repetition."""
    share = setting.constants[0]
    height, width = int(setting.height * share), int(setting.width * share)
    if images.device.type == "cpu":
        return torch.from_numpy(pixelate_planes(images.flatten(0, 1).numpy(), height, width)).view_as(images)
    small = shrink_integer(images, height, width)
    rows, columns = (
        torch.from_numpy(_nearest(*sizes)).to(images.device)
        for sizes in ((setting.height, height), (setting.width, width))
    )
    return small.index_select(3, columns).index_select(2, rows)
