# SPDX-License-Identifier: Apache-2.0
"""Views of an image: random crops, and crops that are mixed with chains of small distortions.

The random numbers of an image are drawn first (`view_numbers`), by a generator of its own; `make_views` is a
pure function of images and numbers, so the views of an image depend neither on its batch nor on the method.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.augment import CROP_NUMBERS, crop_grid
from tta_bench.data.images.distortions import distort
from tta_bench.data.images.mixing import CHAINS, DEPTH, MIX_NUMBERS, mixing
from tta_bench.data.images.views_cpu import empty, fill_crops, fill_mixed
from tta_bench.data.images.views_reference import reference_views
from tta_bench.errors import UnknownNameError

VERSION = 2
"""Raised whenever the views of an image change, so that records of other views are not taken for the same."""
AREA = (0.08, 1.0)
SMALL = 64
"""Shorter side in pixels up to which AugMix shifts images by an eighth instead of cutting crops from them, and up to
which views are made in large blocks on the CPU too."""
AT_ONCE = 1 << 24
"""Numbers in the largest block of distorted images."""


def view_numbers(kind: str, count: int, generator: torch.Generator) -> Tensor:
    """Return the uniform numbers (count - 1, R) that the views of one image are made from, float32.

    Args:
        kind: ``"crop"`` or ``"augmix"``.
        count: V, of which view 0 is the image itself.
        generator: The image's own.

    Raises:
        UnknownNameError: For another kind.
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of views", kind, KINDS)
    return torch.rand(count - 1, KINDS[kind][0], generator=generator)


def make_views(images: Tensor, numbers: Tensor, kind: str, *, recipe: str = "device") -> Tensor:
    """Return the views (N, V, C, H, W) of images, view 0 being the image itself.

    Args:
        images: (N, C, H, W) in [0, 1].
        numbers: (N, V - 1, R) from `view_numbers`, on the same device.
        kind: ``"crop"``: a random resized crop (area 0.08 to 1, ratio 3/4 to 4/3, bilinear), flipped with
            probability 1/2. ``"augmix"``: a crop (of a small image, a shift by up to an eighth of its side) and
            flip, mixed with three chains of one to three distortions at severity 1. Pixels are whole
            multiples of 1/255 before the mix.
        recipe: ``"device"`` for the fastest way on the images' device; ``"reference"`` for the published recipe on
            Pillow images, from the same numbers. They differ by rounding, which an equalisation may enlarge.

    Source: crops as in TPT, arXiv:2209.07511; the mix as in AugMix, arXiv:1912.02781, algorithm 1, at the
        severity of MEMO, arXiv:2110.09506.
    """
    make, views = KINDS[kind][1], numbers.shape[1]
    if not views:
        return images[:, None]
    if recipe == "reference":
        return reference_views(images, numbers, kind, AREA, SMALL)
    if images.device.type == "cpu" and min(images.shape[-2:]) > SMALL and images.shape[1] == 3:
        return _one_by_one(images, numbers, kind)
    return _at_once(images, numbers, make)


def _one_by_one(images: Tensor, numbers: Tensor, kind: str) -> Tensor:
    """Return the views of 8-bit images on the CPU, each written once to where it belongs."""
    out = empty((len(images), 1 + numbers.shape[1], *images.shape[1:]), images)
    out[:, 0] = images
    fill = fill_mixed if kind == "augmix" else fill_crops
    pixels = (images * 255).round().to(torch.uint8).contiguous(memory_format=torch.channels_last)
    for image, drawn, place in zip(pixels, numbers, out, strict=True):
        fill(place[1:], image, drawn, AREA)
    return out


def _at_once(images: Tensor, numbers: Tensor, make: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the views of a batch, made in few large blocks."""
    views = numbers.shape[1]
    group = max(1, AT_ONCE // (CHAINS * views * images[0].numel()))
    made = []
    for part, drawn in zip(torch.split(images, group), torch.split(numbers, group), strict=True):
        repeated = part.repeat_interleave(views, dim=0)
        made.append(torch.unflatten(make(repeated, drawn.flatten(0, 1)), 0, (len(part), views)))
    return torch.cat([images[:, None], torch.cat(made)], dim=1)


def resized_crops(images: Tensor, numbers: Tensor) -> Tensor:
    """Return a random resized crop of each image (N, C, H, W), flipped or not, rounded to 1/255.

    A crop is never larger than the image, so it is only ever enlarged and needs no antialiasing.

    Args:
        images: (N, C, H, W) in [0, 1].
        numbers: (N, 23) uniform.
    """
    size = (images.shape[-2], images.shape[-1])
    grid = crop_grid(numbers, size, numbers[:, -1] < 0.5, AREA, dtype=images.dtype)
    return _rounded(F.grid_sample(images, grid, padding_mode="border", align_corners=False))


def shifts(images: Tensor, numbers: Tensor) -> Tensor:
    """Return each image (N, C, H, W) shifted by up to an eighth of its sides over black, flipped or not.

    Args:
        images: (N, C, H, W) in [0, 1].
        numbers: (N, 23) uniform, of which the last three count.
    """
    height, width = images.shape[-2:]
    pad = (height // 8, width // 8)
    padded = F.pad(images, (pad[1], pad[1], pad[0], pad[0]))
    spot = (numbers[:, -3:-1] * numbers.new_tensor([2 * pad[0] + 1, 2 * pad[1] + 1])).long()
    rows = spot[:, :1] + torch.arange(height, device=images.device)
    columns = spot[:, 1:] + torch.arange(width, device=images.device)
    columns = torch.where(numbers[:, -1:] < 0.5, columns.flip(-1), columns)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return _rounded(padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2))


def mixed(images: Tensor, numbers: Tensor) -> Tensor:
    """Return AugMix views (N, C, H, W) of images.

    Args:
        images: (N, C, H, W) in [0, 1].
        numbers: (N, 57) uniform.
    """
    crop = shifts if min(images.shape[-2:]) <= SMALL else resized_crops
    base = crop(images, numbers[:, :CROP_NUMBERS])
    plan = mixing(numbers[:, CROP_NUMBERS:])
    length = plan.length.flatten()
    chains = base.repeat_interleave(CHAINS, dim=0) * 255
    for index in range(DEPTH):
        chosen = plan.operation[..., index].flatten().masked_fill(length < index, -1)
        chains = distort(
            chains, chosen, plan.level[..., index].flatten(), plan.mirrored[..., index].flatten()
        )
    share = plan.share.to(images)
    parts = (1 - share) * plan.weight.to(images) / 255
    sums = torch.bmm(parts[:, None], torch.unflatten(chains, 0, (-1, CHAINS)).flatten(2)).view_as(base)
    return sums.add_(share[..., None, None] * base)


KINDS: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "crop": (CROP_NUMBERS, resized_crops),
    "augmix": (CROP_NUMBERS + sum(MIX_NUMBERS), mixed),
}
"""Random numbers of one view, and what makes it, by kind."""


def _rounded(images: Tensor) -> Tensor:
    return (images * 255).round_().div_(255)
