# SPDX-License-Identifier: Apache-2.0
"""Small field maths shared by the PocketScenes renderer: waves, value noise, mixing, pixel grids."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from tta_bench.pocket.scenes.draws import OCTAVES, REAL, Draws
from tta_bench.pocket.scenes.spec import SIDE


@cache
def pixel_grid() -> tuple[Tensor, Tensor]:
    """Return the pixel centres, x to the right and y upwards, each (1, H, W) in (-1, 1)."""
    centre = (torch.arange(SIDE, dtype=REAL) + 0.5) * (2 / SIDE) - 1
    return centre.reshape(1, 1, SIDE).expand(1, SIDE, SIDE), (-centre).reshape(1, SIDE, 1).expand(
        1, SIDE, SIDE
    )


def plane(values: Tensor) -> Tensor:
    """Return per-image numbers (N,) as (N, 1, 1), or colours (N, 3) as (N, 3, 1, 1)."""
    return values[..., None, None]


def wave(turns: Tensor) -> Tensor:
    """Return the sine of an angle given in turns, to about 0.001.

    A refined parabola replaces the library's sine, whose last bit depends on the platform.
    """
    t = turns - turns.floor() - 0.5
    y = t * 8 - t * t.abs() * 16
    return -(y + (y * y.abs() - y) * 0.225)


def heading(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine and sine of angles given in turns, normalised to length 1."""
    c, s = wave(turns + 0.25), wave(turns)
    length = (c * c + s * s).sqrt()
    return c / length, s / length


def smooth(x: Tensor, low: float, high: float) -> Tensor:
    """Return a smooth step from 0 at ``low`` to 1 at ``high``."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return ``a`` where the weight is 0 and ``b`` where it is 1."""
    return a + (b - a) * weight


def coverage(pixels: Tensor, softness: float = 1.0) -> Tensor:
    """Return how much of each pixel lies inside a field that is given in pixels."""
    return (0.5 - pixels / softness).clamp(0, 1)


@cache
def _cell_weights(cells: int) -> tuple[Tensor, Tensor]:
    """Return the lattice index and the smooth weight of each pixel along one axis."""
    at = (torch.arange(SIDE, dtype=REAL) + 0.5) * (cells / SIDE)
    index = at.floor()
    t = at - index
    return index.long(), t * t * (3 - 2 * t)


def value_noise(draws: Draws, cells: int) -> Tensor:
    """Return one octave of value noise with the given number of cells, (N, H, W) in [0, 1]."""
    lattice = draws[f"lattice{cells}"]
    index, weight = _cell_weights(cells)
    rows = mix(lattice[:, index], lattice[:, index + 1], weight[:, None])
    return mix(rows[:, :, index], rows[:, :, index + 1], weight)


def cloud_noise(draws: Draws) -> Tensor:
    """Return three octaves of value noise, (N, H, W) in [0, 1]."""
    coarse, middle, fine = (value_noise(draws, cells) for cells in OCTAVES)
    return coarse * 0.55 + middle * 0.3 + fine * 0.15
