# SPDX-License-Identifier: Apache-2.0
"""Views on the CPU, one after the other on 8-bit images: enlarged crops by torch, distortions by Pillow.

A batch of float images is faster on a GPU, and for small images (`tta_bench.data.images.views`); here an image stays in
the cache, and a view is written once. Both make the same views from the same numbers, up to rounding to 8 bits, which
happens here where Pillow rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from tta_bench.augment import CROP_NUMBERS, crop_boxes
from tta_bench.data.images.distortions import (
    BITS,
    FILLING,
    LEVELS,
    MOST_DEGREES,
    MOST_SHEAR,
    MOST_SHIFT,
    OPERATIONS,
)
from tta_bench.data.images.mixing import Mixing, mixing

GREY = int(FILLING)


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return an uninitialised tensor of a shape and the type of another one.

    NumPy asks the kernel for huge pages; first writes to 4 KiB pages would take longer than the views themselves.
    """
    return torch.from_numpy(np.empty(shape, like.numpy().dtype))


def crops(image: Tensor, numbers: Tensor, area: tuple[float, float]) -> Iterator[Tensor]:
    """Yield the random resized crops of an image, flipped or not.

    Args:
        image: (C, H, W) uint8.
        numbers: (V, 23) uniform.
        area: Smallest and largest share of the image's area.
    """
    height, width = image.shape[-2:]
    mirror = image.flip(-1)  # one flip for all views: a crop of the mirror is the mirror of a crop
    boxes = torch.stack(crop_boxes(numbers, height, width, area), 1).long().tolist()
    for (top, left, rows, columns), flip in zip(boxes, (numbers[:, -1] < 0.5).tolist(), strict=True):
        whole, start = (mirror, width - left - columns) if flip else (image, left)
        region = whole[None, :, top : top + rows, start : start + columns]
        yield F.interpolate(region, size=(height, width), mode="bilinear", antialias=True)[0]


def fill_crops(out: Tensor, image: Tensor, numbers: Tensor, area: tuple[float, float]) -> None:
    """Write the crops of an image (C, H, W) uint8 to ``out`` (V, C, H, W), as multiples of 1/255."""
    for view, crop in zip(out, crops(image, numbers, area), strict=True):
        torch.div(crop, 255, out=view)


def fill_mixed(out: Tensor, image: Tensor, numbers: Tensor, area: tuple[float, float]) -> None:
    """Write the AugMix views of an image (C, H, W) uint8 to ``out`` (V, C, H, W)."""
    plan = mixing(numbers[:, CROP_NUMBERS:])
    parts = ((1 - plan.share) * plan.weight / 255).tolist()
    shares = plan.share.flatten().tolist()
    chains = chain_steps(plan)
    for row, (view, crop) in enumerate(zip(out, crops(image, numbers[:, :CROP_NUMBERS], area), strict=True)):
        torch.mul(crop, shares[row] / 255, out=view)
        first = Image.fromarray(crop.permute(1, 2, 0).contiguous().numpy())
        for part, steps in zip(parts[row], chains[row], strict=True):
            mixed = first
            for operation, level, mirrored in steps:
                mixed = DISTORT[operation](mixed, level, -1 if mirrored else 1)
            view.add_(_tensor(mixed), alpha=part)


def chain_steps(plan: Mixing) -> list[list[list[tuple[int, float, bool]]]]:
    """Return operation, level and direction of each step of each chain of each view."""
    low, high = LEVELS
    level = (low + (high - low) * plan.level).tolist()
    operation, mirrored, length = plan.operation.tolist(), plan.mirrored.tolist(), plan.length.tolist()
    return [
        [
            [(operation[v][c][d], level[v][c][d], mirrored[v][c][d]) for d in range(length[v][c] + 1)]
            for c in range(len(length[v]))
        ]
        for v in range(len(length))
    ]


def _tensor(image: Image.Image) -> Tensor:
    """Return the pixels (C, H, W) of an image, to read from."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    size, grey = (image.width, image.height), (GREY,) * 3
    bilinear = Image.Resampling.BILINEAR
    return image.transform(size, Image.Transform.AFFINE, matrix, resample=bilinear, fillcolor=grey)


def _moved(image: Image.Image, x: int, y: int) -> Image.Image:
    """Return an image of which pixel (i, j) is that at (i + x, j + y), grey outside."""
    canvas = Image.new("RGB", (image.width, image.height), (GREY,) * 3)
    canvas.paste(image, (-x, -y))
    return canvas


def _rotated(image: Image.Image, level: float, sign: int) -> Image.Image:
    degrees = sign * int(level * MOST_DEGREES)
    if not degrees:
        return image
    return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=(GREY,) * 3)


_BY_NAME: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "autocontrast": lambda image, level, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, level, sign: ImageOps.equalize(image),
    "posterize": lambda image, level, sign: ImageOps.posterize(image, BITS - int(level * BITS / 10)),
    "solarize": lambda image, level, sign: ImageOps.solarize(image, 256 - int(level * 25.6)),
    "rotate": _rotated,
    "shear_x": lambda image, level, sign: _affine(image, 1, sign * level * MOST_SHEAR, 0, 0, 1, 0),
    "shear_y": lambda image, level, sign: _affine(image, 1, 0, 0, sign * level * MOST_SHEAR, 1, 0),
    "translate_x": lambda image, level, sign: _moved(image, sign * int(level * image.width * MOST_SHIFT), 0),
    "translate_y": lambda image, level, sign: _moved(image, 0, sign * int(level * image.height * MOST_SHIFT)),
}
DISTORT = tuple(_BY_NAME[name] for name in OPERATIONS)
"""The distortions in the order of `distortions.OPERATIONS`: image, level in [0.1, 1] and direction to image."""
