# SPDX-License-Identifier: Apache-2.0
"""Render PocketScenes: a pure function from (split, index, seed) to an image, evaluated in batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from tta_bench.pocket.scenes.draws import Draws, as_indices, draw, labels_of, real
from tta_bench.pocket.scenes.fields import coverage, mix, plane
from tta_bench.pocket.scenes.scenery import add_clutter, add_occluder, paint_background
from tta_bench.pocket.scenes.spec import (
    BACKGROUNDS,
    CLASS_NAMES,
    COLOUR_NAMES,
    COLOURS,
    SIDE,
    TEXTURES,
    Facts,
    Look,
    contrasting,
    look_of,
)
from tta_bench.pocket.scenes.styles import poster, sketch
from tta_bench.pocket.scenes.surface import accents, cast_shadow, lit, object_colours, pose, texture_mask

_CHUNK = 128
"""Images rendered at a time: small enough for the processor's cache, and without effect on the result."""


@cache
def _colour_table() -> tuple[Tensor, Tensor]:
    """Return, for each background, how many colours stand out and which, padded with zeros."""
    lists = [contrasting(name) for name in BACKGROUNDS]
    width = len(COLOURS)
    table = torch.tensor([[*found, *[0] * (width - len(found))] for found in lists])
    return torch.tensor([len(found) for found in lists]), table


def _kinds(draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Return the colour, texture and background index of each image, each (N,)."""
    background = draws.choice("background", len(BACKGROUNDS))
    counts, table = _colour_table()
    pick = (draws["colour"] * counts[background]).long()
    return table[background, pick], draws.choice("texture", len(TEXTURES)), background


def _scene(labels: Tensor, draws: Draws, look: Look) -> Tensor:
    """Return shaded objects in cluttered scenery, (N, 3, H, W)."""
    colour, texture, background = _kinds(draws)
    base = real(list(COLOURS.values()))[colour]
    base = (base + draws["jitter"] * 0.12 - 0.06).clamp(0, 1)
    posed = pose(labels, draws, look)
    image = add_clutter(paint_background(draws, background), draws, look)
    image = cast_shadow(image, draws, posed)
    body = lit(object_colours(base, texture_mask(draws, texture, posed)), draws, posed)
    image = mix(image, body, coverage(posed.body)[:, None])
    detail = plane(accents(labels) * draws.between("accent", 0.85, 1.0)[:, None])
    image = mix(image, detail, coverage(posed.detail)[:, None])
    return add_occluder(image, draws, look, posed.centre)


def _levels(image: Tensor, draws: Draws, look: Look) -> Tensor:
    """Return what a camera would measure, in steps of 8 bits: gain, contrast and sensor noise."""
    image = image * plane(draws.between("gain", *look.gain))[:, None]
    image = (image - 0.45) * plane(draws.between("contrast", *look.contrast))[:, None] + 0.45
    sigma = plane(draws.between("noise", *look.noise))[:, None]
    return (image + draws.sensor * sigma) * 255


def _exposed(image: Tensor, draws: Draws, look: Look) -> Tensor:
    """Return the image as a camera would store it."""
    return (_levels(image, draws, look) + 0.5).floor().clamp(0, 255).to(torch.uint8)


def _render_chunk(split: str, indices: Sequence[int], labels: Tensor, seed: int) -> Tensor:
    look, draws = look_of(split), draw(split, indices, seed)
    if look.style == "scene":
        return _exposed(_scene(labels, draws, look), draws, look)
    posed = pose(labels, draws, look)
    if look.style == "sketch":
        return _exposed(sketch(draws, posed), draws, look)
    colour, texture, background = _kinds(draws)
    mask = texture_mask(draws, texture, posed)
    return _exposed(poster(draws, posed, mask, (colour, background), accents(labels)), draws, look)


@torch.no_grad()
def render(split: str, indices: Sequence[int] | Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Render images of a split.

    Every image depends on ``split``, its index and ``seed`` alone: it has the same bits in any batch.

    Args:
        split: One of ``SPLITS``.
        indices: Image indices below the split's size, in any order, repeats allowed.
        seed: Seed of the data set; 0 is the published one.

    Returns:
        Images (N, 3, 32, 32) uint8 and labels (N,) int64, on the CPU.

    Raises:
        UnknownNameError: If there is no such split.
        BadInputError: If an index lies outside the split.
    """
    listed = as_indices(split, indices)
    labels = labels_of(split, listed, seed)
    images = torch.empty(len(listed), 3, SIDE, SIDE, dtype=torch.uint8)
    for start in range(0, len(listed), _CHUNK):
        part = slice(start, start + _CHUNK)
        images[part] = _render_chunk(split, listed[part], labels[part], seed)
    return images, labels


def facts(split: str, indices: Sequence[int] | Tensor, seed: int = 0) -> list[Facts]:
    """Return the words that describe each image: object, colour, texture and background.

    Args:
        split: One of ``SPLITS``; sketches have an object only in outline, so their other words do not show.
        indices: Image indices below the split's size.
        seed: Seed of the data set.

    Raises:
        UnknownNameError: If there is no such split.
        BadInputError: If an index lies outside the split.
    """
    listed = as_indices(split, indices)
    if not listed:
        return []
    found: list[Facts] = []
    labels = labels_of(split, listed, seed).tolist()
    for start in range(0, len(listed), _CHUNK):
        kinds = _kinds(draw(split, listed[start : start + _CHUNK], seed))
        rows = zip(labels[start : start + _CHUNK], *(kind.tolist() for kind in kinds), strict=True)
        found += [Facts(CLASS_NAMES[k], COLOUR_NAMES[c], TEXTURES[t], BACKGROUNDS[b]) for k, c, t, b in rows]
    return found
