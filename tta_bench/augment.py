# SPDX-License-Identifier: Apache-2.0
"""Augmentations as pure batched functions of images and parameters that were drawn beforehand.

Parameters are a dictionary of tensors with one row per augmentation: `draw_jitter` and `draw_crops` make them,
`augment` applies them. One row serves a whole batch, N rows serve its images one by one. Every spatial change
is a sampling grid, so shifts, flips, rotations and crops cost one interpolation together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.optim import widest

Draws = dict[str, Tensor]
"""``grid`` (R, H, W, 2) and, as far as they are wanted, ``colour`` (R, 5), ``order`` (R, 5), ``sigma`` (R,) and
``noise`` (R, C, H, W)."""

ATTEMPTS = 10
"""Tries for a crop that fits, after which it is the middle of the image."""
RATIO = (3 / 4, 4 / 3)
CROP_NUMBERS = 2 * ATTEMPTS + 3
"""Uniform numbers of one crop: areas, ratios, two for its place, and one left over, e.g. for a flip."""
LUMA = (0.299, 0.587, 0.114)
BRIGHTNESS, CONTRAST, SATURATION, HUE, GAMMA = range(5)
STILL = (1.0, 1.0, 1.0, 0.0, 1.0)
"""Factors of brightness, contrast and saturation, turn of the hue, and gamma that change nothing."""


@dataclass(frozen=True)
class Jitter:
    """Ranges of a random change of colours and of position, blur and noise.

    Attributes:
        brightness: Largest distance of the factor from 1; likewise contrast, saturation and gamma.
        contrast: See brightness.
        saturation: See brightness.
        hue: Largest turn either way, in turns.
        gamma: See brightness.
        degrees: Largest rotation either way.
        shift: Largest translation either way, as a share of the side; whole pixels are drawn.
        zoom: Largest distance of the scale from 1.
        flip: Probability of a horizontal flip.
        padding: What lies outside the image: its edge repeated, or its mirror image.
        sigma: Range of the Gaussian blur's deviation in pixels; None for no blur.
        noise: Deviation of the Gaussian noise; 0 for none.

    Source: the defaults are those of CoTTA, arXiv:2203.13591, and its published code, which pads the image by half
    its side on every side first: a translation of 1/16 of the padded side is 1/8 of the image's.
    """

    brightness: float = 0.4
    contrast: float = 0.3
    saturation: float = 0.5
    hue: float = 0.06
    gamma: float = 0.3
    degrees: float = 15.0
    shift: float = 1 / 8
    zoom: float = 0.1
    flip: float = 0.5
    padding: Literal["edge", "reflect"] = "edge"
    sigma: tuple[float, float] | None = (0.001, 0.5)
    noise: float = 0.005


def draw_jitter(rows: int, shape: tuple[int, int, int], generator: torch.Generator, ranges: Jitter) -> Draws:
    """Draw the parameters of that many augmentations.

    Args:
        rows: R.
        shape: Channels, height and width of the images.
        generator: The source of randomness; the parameters are made on its device.
        ranges: How far they reach.
    """
    u = torch.rand(rows, 12, generator=generator, device=generator.device)
    reach = u.new_tensor([ranges.brightness, ranges.contrast, ranges.saturation, ranges.hue, ranges.gamma])
    angle = math.radians(ranges.degrees) * (2 * u[:, 5] - 1)
    scale = 1 + ranges.zoom * (2 * u[:, 6] - 1)
    sides = u.new_tensor([shape[-1], shape[-2]])
    shifts = (ranges.shift * (2 * u[:, 7:9] - 1) * sides).round() / sides
    flip = torch.where(u[:, 9] < ranges.flip, -1.0, 1.0)
    draws = {
        "grid": _folded(_affine(shape, angle, scale, shifts, flip), shape, ranges.padding),
        "colour": u.new_tensor(STILL) + reach * (2 * u[:, :5] - 1),
        "order": torch.rand(rows, 5, generator=generator, device=generator.device).argsort(-1),
    }
    if ranges.sigma is not None:
        draws["sigma"] = ranges.sigma[0] + (ranges.sigma[1] - ranges.sigma[0]) * u[:, 10]
    if ranges.noise:
        draws["noise"] = ranges.noise * torch.randn(
            rows, *shape, generator=generator, device=generator.device
        )
    return draws


def draw_crops(
    rows: int,
    shape: tuple[int, int, int],
    generator: torch.Generator,
    area: tuple[float, float],
    flip: float = 0.5,
    ratio: tuple[float, float] = RATIO,
) -> Draws:
    """Draw crops of a random area and aspect in whole pixels, scaled to the whole image and flipped by chance.

    Args:
        rows: R.
        shape: Channels, height and width of the images.
        generator: The source of randomness; the parameters are made on its device.
        area: Smallest and largest share of the image's area.
        flip: Probability of a horizontal flip.
        ratio: Smallest and largest width over height, drawn on a logarithmic scale.
    """
    u = torch.rand(rows, CROP_NUMBERS, generator=generator, device=generator.device)
    return {"grid": crop_grid(u, (shape[-2], shape[-1]), u[:, -1] < flip, area, ratio, u.dtype)}


def crop_grid(
    numbers: Tensor,
    size: tuple[int, int],
    mirrored: Tensor,
    area: tuple[float, float],
    ratio: tuple[float, float] = RATIO,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the grids (N, H, W, 2) of random resized crops.

    A box is redrawn until it fits, `ATTEMPTS` times at most; then it is as much of the middle as the ratios
    allow. A crop never shows what lies outside its box.

    Args:
        numbers: (N, `CROP_NUMBERS`) uniform, of which the last is left to the caller.
        size: Height and width of the images.
        mirrored: (N,) bool.
        area: Smallest and largest share of the image's area.
        ratio: Smallest and largest width over height.
        dtype: Of the grids.
    """
    height, width = size
    top, left, rows, columns = crop_boxes(numbers, height, width, area, ratio)
    y, x = _places(top, rows, height).to(dtype), _places(left, columns, width).to(dtype)
    x = torch.where(mirrored[:, None], x.flip(-1), x)
    return torch.stack(
        [
            ((2 * x + 1) / width - 1)[:, None, :].expand(-1, height, -1),
            ((2 * y + 1) / height - 1)[:, :, None].expand(-1, -1, width),
        ],
        dim=-1,
    )


def crop_boxes(
    numbers: Tensor,
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float] = RATIO,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return top, left, height and width (N,) of the first crop that fits."""
    areas = height * width * (area[0] + (area[1] - area[0]) * numbers[:, :ATTEMPTS])
    low, high = (math.log(bound) for bound in ratio)
    aspects = (low + (high - low) * numbers[:, ATTEMPTS : 2 * ATTEMPTS]).exp()
    columns, rows = (areas * aspects).sqrt().round(), (areas / aspects).sqrt().round()
    fits = (columns >= 1) & (columns <= width) & (rows >= 1) & (rows <= height)
    first = fits.int().argmax(1, keepdim=True)
    some = fits.any(1)
    # Without one that fits: as much of the middle as the ratios allow.
    rows = torch.where(some, rows.gather(1, first)[:, 0], float(min(height, round(width / ratio[0]))))
    columns = torch.where(some, columns.gather(1, first)[:, 0], float(min(width, round(height * ratio[1]))))
    top, left = numbers[:, -3] * (height - rows + 1), numbers[:, -2] * (width - columns + 1)
    top = torch.where(some, top.floor().minimum(height - rows), ((height - rows) / 2).floor())
    left = torch.where(some, left.floor().minimum(width - columns), ((width - columns) / 2).floor())
    return top, left, rows, columns


def _places(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Return where (N, size) in the image the pixels of enlarged crops lie, inside each crop."""
    centres = torch.arange(size, dtype=widest(start.device), device=start.device) + 0.5
    start, length = start.to(centres.dtype)[:, None], length.to(centres.dtype)[:, None]
    return (start + centres * length / size - 0.5).clamp(start, start + length - 1)


def draw_contrastive(rows: int, shape: tuple[int, int, int], generator: torch.Generator) -> Draws:
    """Draw the crops, colours and blurs of contrastive learning.

    Source: MoCo v2, arXiv:2003.04297: area 0.2 to 1, jitter 0.4, 0.4, 0.4 and 0.1 with probability 0.8, then grey
    with 0.2, blur of deviation 0.1 to 2 with 0.5. The deviation is for images of 224 pixels and scales.
    """
    ranges = Jitter(0.4, 0.4, 0.4, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, "edge", (0.1, 2.0), 0.0)
    draws = {**draw_jitter(rows, shape, generator, ranges), **draw_crops(rows, shape, generator, (0.2, 1.0))}
    chance = torch.rand(rows, 3, generator=generator, device=generator.device)
    draws["colour"] = torch.where(chance[:, :1] < 0.8, draws["colour"], draws["colour"].new_tensor(STILL))
    grey = chance[:, 1] < 0.2
    draws["colour"][:, SATURATION] *= ~grey
    late = (draws["order"] == SATURATION) & grey[:, None]  # a grey image is made after all other changes
    draws["order"] = draws["order"].gather(1, late.int().argsort(dim=1, stable=True))
    draws["sigma"] = draws["sigma"] * (chance[:, 2] < 0.5) * shape[-1] / 224
    return draws


def still(shape: tuple[int, int, int], rows: int = 1) -> Draws:
    """Return the parameters of augmentations that leave images (N, C, H, W) of this shape as they are."""
    y, x = ((2 * torch.arange(side) + 1) / side - 1 for side in shape[-2:])
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    return {"grid": grid.expand(rows, -1, -1, -1)}


def augment(images: Tensor, draws: Draws) -> Tensor:
    """Return augmented copies: colours, position, blur and noise in this order, clipped to [0, 1].

    Args:
        images: (N, C, H, W) in [0, 1].
        draws: One row, or N.
    """
    made = images.clamp(0, 1)
    if "colour" in draws:
        made = _coloured(made, draws["colour"].to(made), draws["order"])
    made = warp(made, draws["grid"])
    if "sigma" in draws:
        made = _blurred(made, draws["sigma"].to(made))
    if "noise" in draws:
        made = made + draws["noise"].to(made)
    return made.clamp(0, 1)


def warp(images: Tensor, grid: Tensor) -> Tensor:
    """Return images (N, C, H, W) read at other places, by bilinear interpolation.

    Args:
        images: (N, C, H, W).
        grid: (R, H, W, 2), x and y of the place that each pixel is read from; the image spans -1 to 1, and
            what lies outside is its edge repeated. R is 1 or N.
    """
    places = grid.to(images).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=False)


def _affine(
    shape: tuple[int, int, int], angle: Tensor, scale: Tensor, shifts: Tensor, flip: Tensor
) -> Tensor:
    """Return grids (R, H, W, 2) of rotation, scale and translation about the centre, then flips."""
    height, width = shape[-2:]
    base = still(shape, len(angle))["grid"].to(angle)
    half = angle.new_tensor([width / 2, height / 2])
    pixels = base * half * torch.stack([flip, torch.ones_like(flip)], -1)[:, None, None]
    pixels = pixels - (2 * shifts * half)[:, None, None]
    cos, sin = angle.cos() / scale, angle.sin() / scale
    back = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    return torch.einsum("rij,rhwj->rhwi", back, pixels) / half


def _folded(grid: Tensor, shape: tuple[int, int, int], padding: str) -> Tensor:
    """Return a grid in which places outside the image are mirrored at its outermost pixels, if so wanted."""
    if padding == "edge":
        return grid
    last = grid.new_tensor([1 - 1 / shape[-1], 1 - 1 / shape[-2]])  # centres of the outermost pixels
    turns = torch.remainder(grid + last, (4 * last).clamp(min=1e-6))
    return torch.where(turns > 2 * last, 4 * last - turns, turns) - last


def _coloured(x: Tensor, colour: Tensor, order: Tensor) -> Tensor:
    """Change the colours of images (N, C, H, W), each in its own order."""
    amounts = colour[..., None, None, None]
    if len(order) == 1:
        for change in order[0].tolist():
            x = _changed(x, change, amounts[:, change])
        return x
    for position in range(order.shape[1]):
        for change in sorted(set(order[:, position].tolist())):
            rows = (order[:, position] == change).nonzero().squeeze(1)
            x = x.index_copy(0, rows, _changed(x[rows], change, amounts[rows, change]))
    return x


def _changed(x: Tensor, change: int, amount: Tensor) -> Tensor:
    """Change one property of images; the amounts are (1, 1, 1, 1) or (N, 1, 1, 1)."""
    if change == HUE:
        return torch.where(amount == 0, x, _turned(x, amount)) if x.shape[1] == 3 else x
    if change == GAMMA:
        return torch.where(amount == 1, x, x.clamp(min=1e-8) ** amount)
    if change == BRIGHTNESS:
        return (amount * x).clamp(0, 1)
    towards = _grey(x).mean((-2, -1), keepdim=True) if change == CONTRAST else _grey(x)
    return (amount * x + (1 - amount) * towards).clamp(0, 1)


def _grey(x: Tensor) -> Tensor:
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    red, green, blue = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of RGB images (N, 3, H, W), keeping value and saturation."""
    red, green, blue = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    rest = torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    hue = torch.where(value == red, green - blue, rest) / chroma.clamp(min=1e-12) + 6 * (turns + 1)
    sixths = hue / 6 + hue.new_tensor([5 / 6, 3 / 6, 1 / 6]).view(-1, 1, 1)
    away = sixths.frac_().sub_(1 / 3).abs_()  # of the circle, from where the channel is lowest
    return torch.addcmul(value, chroma, away.mul_(-6).add_(2).clamp_(0, 1), value=-1)


def _blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur images (N, C, H, W) by a Gaussian with its own deviation each; the edge is repeated outside."""
    channels, radius = x.shape[1], max(2, math.ceil(3 * float(sigma.max())))
    steps = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = (-0.5 * (steps / sigma.clamp(min=1e-3)[:, None]).square()).softmax(-1)
    taps = kernel.expand(len(x), -1).repeat_interleave(channels, 0)
    flat = F.pad(x, (radius,) * 4, mode="replicate").flatten(0, 1)[None]
    rows = F.conv2d(flat, taps[:, None, None, :], groups=flat.shape[1])
    return F.conv2d(rows, taps[:, None, :, None], groups=flat.shape[1]).view_as(x)


def shuffle_patches(images: Tensor, order: Tensor, count: int) -> Tensor:
    """Return images (N, C, H, W) whose patches are rearranged.

    Args:
        images: (N, C, H, W); sides that ``count`` does not divide are resized on the way and back.
        order: (N, count * count) int64: patch j of the result, row by row, is patch ``order[:, j]``.
        count: Patches along each side.
    """
    sides = (images.shape[-2], images.shape[-1])
    patch = (sides[0] // count, sides[1] // count)
    whole = (patch[0] * count, patch[1] * count)
    if whole != sides:
        images = F.interpolate(images, whole, mode="bilinear", antialias=True)
    cut = F.unfold(images, patch, stride=patch)
    mixed = F.fold(cut.gather(2, order[:, None].expand(-1, cut.shape[1], -1)), whole, patch, stride=patch)
    return mixed if whole == sides else F.interpolate(mixed, sides, mode="bilinear", antialias=True)


def shuffle_pixels(images: Tensor, order: Tensor) -> Tensor:
    """Return images (N, C, H, W) whose pixels are rearranged by orders (N, H * W), alike in all channels."""
    return images.flatten(2).gather(2, order[:, None].expand(-1, images.shape[1], -1)).view_as(images)


def paint_middle(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) whose middle half, along each side, has the image's mean colour."""
    rows, columns = (slice(side // 4, side // 4 + side // 2) for side in images.shape[-2:])
    painted = images.clone()
    painted[..., rows, columns] = images.mean((-2, -1), keepdim=True)
    return painted
