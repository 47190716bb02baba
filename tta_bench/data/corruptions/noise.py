# SPDX-License-Identifier: Apache-2.0
"""Noise: gaussian, shot, impulse and speckle; every pixel and channel independently."""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

import numpy as np
import torch
from scipy.stats import poisson
from torch import Tensor

from tta_bench.data.corruptions.base import Arrays, Draws, Setting, to_bytes
from tta_bench.data.corruptions.rng import Stream

_CELLS: Final = 1 << 12
_DRAW_BITS: Final = 31
_FINE_BITS: Final = _DRAW_BITS - 12


def draw_normal(stream: Stream, setting: Setting) -> Arrays:
    """Draw one standard normal number per pixel and channel."""
    return {"normal": stream.normal(3, setting.height, setting.width)}


def gaussian_noise(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Add normal noise of a fixed standard deviation."""
    return to_bytes(images.float().add_(draws["normal"], alpha=255 * setting.constants[0]))


def speckle_noise(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Add normal noise in proportion to the value of the pixel."""
    return to_bytes((draws["normal"] * setting.constants[0]).add_(1).mul_(images))


def draw_impulses(stream: Stream, setting: Setting) -> Arrays:
    """Draw bit masks per pixel and channel: what to keep of the value, and what to set (salt)."""
    cells = stream.uint16(3, setting.height, setting.width)
    share = setting.constants[0] * 65536
    keep = -(cells >= round(share)).view(np.int8)
    salt = -(cells < round(share / 2)).view(np.int8)
    return {"keep": keep.view(np.uint8), "salt": salt.view(np.uint8)}


def impulse_noise(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Replace a share of the values by black or white, half each."""
    return (images & draws["keep"]).bitwise_or_(draws["salt"])


class _PoissonTable(NamedTuple):
    """Inverse distribution of the 8-bit outcome for each of the 256 input levels.

    `cells` (256 * 4096,) int16 hold the 8-bit outcome of each cell of probability, plus 256 where the cell has
    more than one; `steps` (256, K) are the cumulative probabilities and `levels` (K + 1,) the 8-bit outcome of
    each count.
    """

    cells: Tensor
    steps: Tensor
    levels: Tensor


@cache
def _poisson_table(photons: float, device: torch.device) -> _PoissonTable:
    rates = np.arange(256) / 255 * photons
    most = int(poisson.isf(2.0**-40, photons)) + 1
    steps = poisson.cdf(np.arange(most)[None], rates[:, None])
    levels = (np.minimum(np.arange(most + 1) / photons, 1) * 255).astype(np.uint8)
    edges = np.arange(_CELLS + 1) / _CELLS
    counts = np.stack([np.searchsorted(row, edges, side="right") for row in steps]).clip(max=most)
    first, last = levels[counts[:, :-1]], levels[counts[:, 1:]]
    cells = first.astype(np.int16) + np.int16(256) * (first != last)
    return _PoissonTable(*(torch.as_tensor(array, device=device) for array in (cells.ravel(), steps, levels)))


def draw_uniform(stream: Stream, setting: Setting) -> Arrays:
    """Draw one uniform 31-bit integer per pixel and channel."""
    return {"uniform": stream.uint31(3, setting.height, setting.width)}


def _places(mask: Tensor) -> Tensor:
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))  # several times faster than nonzero()
    return mask.nonzero().squeeze(1)


def shot_noise(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Replace each value by a Poisson count with that mean, by inversion of the distribution."""
    table = _poisson_table(setting.constants[0], images.device)
    uniform, levels = draws["uniform"].reshape(-1), images.reshape(-1)
    cells = levels.int().mul_(_CELLS).add_(uniform >> _FINE_BITS)
    outcome = table.cells.index_select(0, cells)
    result = outcome.to(torch.uint8)
    several = _places(outcome > 255)
    chance = (uniform[several].double() + 0.5) / 2**_DRAW_BITS
    rows = table.steps[levels[several].long()]
    result[several] = table.levels[torch.searchsorted(rows, chance[:, None], right=True).squeeze(1)]
    return result.view_as(images)
