# SPDX-License-Identifier: Apache-2.0
"""Views by the published recipe: Pillow images, cropped, resized, flipped and distorted one by one.

It draws nothing of its own, so its views can be compared, image by image, with those that we make faster.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tta_bench.augment import CROP_NUMBERS, crop_boxes
from tta_bench.data.images.mixing import Mixing, mixing
from tta_bench.data.images.views_cpu import DISTORT, chain_steps

BILINEAR = Image.Resampling.BILINEAR


def reference_views(
    images: Tensor, numbers: Tensor, kind: str, area: tuple[float, float], small: int
) -> Tensor:
    """Return the views (N, V, C, H, W) of images, view 0 being the image itself.

    Args:
        images: (N, 3, H, W) in [0, 1].
        numbers: (N, V - 1, R) uniform.
        kind: ``"crop"`` or ``"augmix"``.
        area: Smallest and largest share of the image's area in a crop.
        small: Shorter side up to which AugMix shifts images instead of cutting crops from them.
    """
    pixels = (images * 255).round().to(torch.uint8).cpu().permute(0, 2, 3, 1).numpy()
    made = []
    for original, image, drawn in zip(images, map(Image.fromarray, pixels), numbers.cpu(), strict=True):
        shifts = kind == "augmix" and min(image.size) <= small
        crops = _shifted(image, drawn) if shifts else _cropped(image, drawn, area)
        views = [_tensor(crop) for crop in crops]
        if kind == "augmix":
            views = _mixed(crops, mixing(drawn[:, CROP_NUMBERS:]))
        made.append(torch.stack([original, *(view.to(original) for view in views)]))
    return torch.stack(made)


def _cropped(image: Image.Image, numbers: Tensor, area: tuple[float, float]) -> list[Image.Image]:
    boxes = torch.stack(crop_boxes(numbers[:, :CROP_NUMBERS], image.height, image.width, area), 1).long()
    found = []
    for (top, left, rows, columns), flip in zip(boxes.tolist(), _flips(numbers), strict=True):
        crop = image.crop((left, top, left + columns, top + rows)).resize(image.size, BILINEAR)
        found.append(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else crop)
    return found


def _shifted(image: Image.Image, numbers: Tensor) -> list[Image.Image]:
    found, most = [], torch.tensor([image.height // 8, image.width // 8])
    spots = (numbers[:, CROP_NUMBERS - 3 : CROP_NUMBERS - 1] * (2 * most + 1)).long() - most
    for (down, right), flip in zip(spots.tolist(), _flips(numbers), strict=True):
        moved = Image.new("RGB", image.size)
        moved.paste(image, (-right, -down))
        found.append(moved.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else moved)
    return found


def _mixed(crops: list[Image.Image], plan: Mixing) -> list[Tensor]:
    """Return each crop mixed with its three chains of distortions."""
    found = []
    for row, (crop, chains) in enumerate(zip(crops, chain_steps(plan), strict=True)):
        mix = torch.zeros(3, crop.height, crop.width)
        for weight, steps in zip(plan.weight[row].tolist(), chains, strict=True):
            image = crop.copy()
            for operation, level, mirrored in steps:
                image = DISTORT[operation](image, level, -1 if mirrored else 1)
            mix += weight * _tensor(image)
        share = float(plan.share[row])
        found.append(share * _tensor(crop) + (1 - share) * mix)
    return found


def _flips(numbers: Tensor) -> list[bool]:
    flips: list[bool] = (numbers[:, CROP_NUMBERS - 1] < 0.5).tolist()
    return flips


def _tensor(image: Image.Image) -> Tensor:
    """Return the pixels (3, H, W) of an image in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
