# SPDX-License-Identifier: Apache-2.0
"""The nine small distortions of AugMix at severity 1, on batches in which each image has its own.

They follow Pillow's arithmetic on 8-bit images: values are whole numbers from 0 to 255, geometry is bilinear
about pixel centres, and what comes from outside the image is grey.

Source: AugMix, arXiv:1912.02781, section 3; severity 1 and the grey filling as in MEMO, arXiv:2110.09506.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

OPERATIONS = (
    "autocontrast", "equalize", "posterize", "solarize",
    "rotate", "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip
GEOMETRIC = OPERATIONS.index("rotate")
FILLING = 128.0
MOST_DEGREES, MOST_SHEAR, MOST_SHIFT, BITS = 3.0, 0.03, 1 / 30, 4
LEVELS = (0.1, 1.0)


def distort(images: Tensor, operation: Tensor, level: Tensor, mirrored: Tensor) -> Tensor:
    """Return images with one distortion each.

    Args:
        images: (N, C, H, W), whole numbers from 0 to 255 of a floating type.
        operation: (N,) int64 indices into `OPERATIONS`; -1 leaves an image as it is.
        level: (N,) uniform numbers, which the strengths are made from.
        mirrored: (N,) bool: whether a geometric distortion goes the other way.
    """
    result, strength = images.clone(), LEVELS[0] + (LEVELS[1] - LEVELS[0]) * level
    for index, name in enumerate(OPERATIONS[:GEOMETRIC]):
        rows = (operation == index).nonzero()[:, 0]
        if len(rows):
            result[rows] = _TONAL[name](images[rows], strength[rows])
    rows = (operation >= GEOMETRIC).nonzero()[:, 0]
    if len(rows):
        kinds = operation[rows] - GEOMETRIC
        maps = affine_maps(kinds, strength[rows], mirrored[rows], *images.shape[-2:])
        result[rows] = warp(images[rows], maps)
    return result


def affine_maps(kinds: Tensor, strength: Tensor, mirrored: Tensor, height: int, width: int) -> Tensor:
    """Return the maps (N, 2, 3) from pixels (x, y, 1) of the result to those of the image, float64.

    Args:
        kinds: (N,) 0 to 4: rotation, shear along x and y, translation along x and y.
        strength: (N,) in [0.1, 1].
        mirrored: (N,) bool.
        height: Of the images.
        width: Of the images.
    """
    strength = strength.double()
    sign = 1.0 - 2.0 * mirrored.double()
    angle = torch.deg2rad(sign * (strength * MOST_DEGREES).floor()) * (kinds == 0)
    shear = sign * strength * MOST_SHEAR
    maps = torch.zeros(len(kinds), 2, 3, dtype=torch.float64, device=kinds.device)
    cos, sin = angle.cos(), angle.sin()
    maps[:, 0, 0], maps[:, 1, 1] = cos, cos
    maps[:, 0, 1] = torch.where(kinds == 1, shear, -sin)
    maps[:, 1, 0] = torch.where(kinds == 2, shear, sin)
    # A rotation is about the centre of the image.
    x, y = width / 2, height / 2
    maps[:, 0, 2] = torch.where(kinds == 0, x - cos * x + sin * y, 0.0)
    maps[:, 1, 2] = torch.where(kinds == 0, y - sin * x - cos * y, 0.0)
    maps[:, 0, 2] += torch.where(kinds == 3, sign * (strength * width * MOST_SHIFT).floor(), 0.0)
    maps[:, 1, 2] += torch.where(kinds == 4, sign * (strength * height * MOST_SHIFT).floor(), 0.0)
    return maps


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Return images (N, C, H, W) seen through affine maps (N, 2, 3): bilinear, grey outside, rounded down."""
    height, width = images.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64, device=images.device) + 0.5,
        torch.arange(width, dtype=torch.float64, device=images.device) + 0.5,
        indexing="ij",
    )
    points = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    found = torch.unflatten(maps @ points, 2, (height, width))
    size = found.new_tensor([width, height])[:, None, None]
    inside = ((found >= 0) & (found < size)).all(1, keepdim=True)
    grid = (found * (2 / size) - 1).to(images).permute(0, 2, 3, 1)
    seen = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return torch.where(inside, seen.add_(1e-3).floor_(), FILLING)


def _autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    scale = 255 / (high - low).clamp(min=1).double()  # in float64, where Pillow rounds 255 to 254, so do we
    stretched = (images * scale - low * scale).floor().clamp(0, 255).to(images.dtype)
    return torch.where(high > low, stretched, images)


def _equalize(images: Tensor, strength: Tensor) -> Tensor:
    levelled: Tensor = TF.equalize(images.to(torch.uint8))
    return levelled.to(images.dtype)


def _posterize(images: Tensor, strength: Tensor) -> Tensor:
    step = 2.0 ** (8 - BITS + (strength * BITS / 10).floor())[:, None, None, None].to(images)
    return (images / step).floor() * step


def _solarize(images: Tensor, strength: Tensor) -> Tensor:
    threshold = (256 - (strength * 25.6).floor())[:, None, None, None].to(images)
    return torch.where(images < threshold, images, 255 - images)


_TONAL = {
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "posterize": _posterize,
    "solarize": _solarize,
}
