# SPDX-License-Identifier: Apache-2.0
"""Fog: a fractal map of haze made by periodic diamond-square refinement."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from torch import Tensor

from tta_bench.data.corruptions.base import Arrays, Draws, Setting, to_bytes
from tta_bench.data.corruptions.rng import Floats, Stream

_FIRST_WIDTH: Final = 100.0


def map_size(height: int, width: int) -> int:
    """Return the side of the haze map: the smallest power of two that covers the image."""
    return 1 << (max(height, width) - 1).bit_length()


@cache
def _amplitudes(decay: float, size: int) -> Floats:
    """Return the amplitude of each drawn number: the square of a width that shrinks at each refinement."""
    levels = range(size.bit_length() - 1)
    return np.concatenate(
        [np.full(3 * 4**k, (_FIRST_WIDTH / decay**k) ** 2, dtype=np.float32) for k in levels]
    )


def _refine(coarse: Floats, noise: Floats) -> Floats:
    """Return the periodic map (M, M) at twice the resolution.

    Args:
        coarse: (M, M).
        noise: (3, M, M), for the centres, the middles of the horizontal and of the vertical sides.
    """
    side = len(coarse)
    quarter = np.float32(0.25)
    corners = np.empty((side + 1, side + 1), np.float32)
    corners[:-1, :-1], corners[:-1, -1] = coarse, coarse[:, 0]
    corners[-1] = corners[0]
    across = corners[:, :-1] + corners[:, 1:]
    around = np.empty((side + 1, side + 1), np.float32)
    centre = around[1:, 1:]
    np.add((across[:-1] + across[1:]) * quarter, noise[0], out=centre)
    around[0, 1:], around[1:, 0] = centre[-1], centre[:, -1]
    fine = np.empty((side, 2, side, 2), np.float32)
    fine[:, 0, :, 0], fine[:, 1, :, 1] = coarse, centre
    fine[:, 0, :, 1] = (around[:-1, 1:] + centre + across[:-1]) * quarter + noise[1]
    fine[:, 1, :, 0] = (around[1:, :-1] + centre + coarse + corners[1:, :-1]) * quarter + noise[2]
    return fine.reshape(2 * side, 2 * side)


def haze_map(unit: Floats, decay: float, size: int) -> Floats:
    """Return a haze map (size, size) spread over [0, 1].

    The amplitude is the square of a width that starts at 100 and is divided by ``decay`` at each refinement.

    Args:
        unit: (size * size - 1,) numbers in [-1, 1], in drawing order: coarse to fine, and at each refinement the
            centres, the middles of the horizontal sides and those of the vertical sides.
        decay: Ratio of successive widths.
        size: Side of the map, a power of two.
    """
    noise = unit * _amplitudes(decay, size)
    haze, start = np.zeros((1, 1), np.float32), 0
    while (side := len(haze)) < size:
        stop = start + 3 * side * side
        haze = _refine(haze, noise[start:stop].reshape(3, side, side))
        start = stop
    low, high = haze.min(), haze.max()
    haze -= low
    haze /= high - low
    return haze


def draw_fog(stream: Stream, setting: Setting) -> Arrays:
    """Draw the haze (H, W) in [0, 1]: the top left part of the map."""
    size = map_size(setting.height, setting.width)
    haze = haze_map(stream.uniform(-1, 1, size * size - 1), setting.constants[1], size)
    return {"haze": np.ascontiguousarray(haze[: setting.height, : setting.width])}


def fog(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Add haze and scale back so that the brightest value of the image stays the brightest."""
    strength = 255 * setting.constants[0]
    brightest = images.amax((1, 2, 3), keepdim=True).float()
    factor = brightest / (brightest + strength)
    return to_bytes(images.float().mul_(factor).add_(draws["haze"][:, None] * (strength * factor)))
