# SPDX-License-Identifier: Apache-2.0
"""Glass blur: pixels copied from random neighbours between two Gaussian filters.

The published generator walks over the pixels one by one, from the bottom right, and copies each from a neighbour
that may itself have been replaced before. Here a sweep is one index map: a pixel that reads an already replaced
one follows it, and pointer doubling resolves all chains at once, exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tta_bench.data.corruptions.base import Arrays, Draws, Setting, to_bytes
from tta_bench.data.corruptions.filters import gaussian_filter
from tta_bench.data.corruptions.rng import Stream


def draw_glass(stream: Stream, setting: Setting) -> Arrays:
    """Draw the neighbour of each visited pixel: (sweeps, visited, 2), columns dx and dy, in visiting order."""
    _, reach, sweeps = setting.constants
    visited = int((setting.height - 2 * reach) * (setting.width - 2 * reach))
    return {"neighbours": stream.offsets(int(reach), int(sweeps), visited, 2)}


def _sweep_map(neighbours: Tensor, reach: int, height: int, width: int) -> Tensor:
    """Return the index (N * H * W,) into all pixels of the batch that each pixel holds after one sweep.

    Args:
        neighbours: (N, visited, 2) columns dx and dy; rows and columns descend from size - reach to reach + 1.
        reach: Largest displacement.
        height: Rows of the image.
        width: Columns of the image.
    """
    rows, columns = height - 2 * reach, width - 2 * reach
    dx, dy = neighbours.flip(1).view(-1, rows, columns, 2).int().unbind(3)
    target_row = torch.arange(rows, device=dx.device, dtype=torch.int32)[:, None] + dy
    target_column = torch.arange(columns, device=dx.device, dtype=torch.int32) + dx
    steps = (dy * width).add_(dx)
    # A pixel read before its own turn comes holds its new value if it lies in the visited region: only the lower
    # and the side bounds can be left by a step ahead.
    ahead = (steps > 0) & (target_row < rows) & (target_column >= 0) & (target_column < columns)
    source = torch.arange(len(dx) * height * width, device=dx.device, dtype=torch.int32)
    chain = source.clone()
    region = (..., slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    source.view(-1, height, width)[region] += steps
    chain.view(-1, height, width)[region] += steps.mul_(ahead)
    while not torch.equal(further := chain.index_select(0, chain), chain):
        chain = further
    return source.index_select(0, chain)


def scatter_map(neighbours: Tensor, reach: int, height: int, width: int) -> Tensor:
    """Return the index (N * H * W,) of the source of each pixel after all sweeps, among all pixels of the batch.

    Args:
        neighbours: (N, sweeps, visited, 2) integers, columns dx and dy, in visiting order.
        reach: Largest displacement.
        height: Rows of the image.
        width: Columns of the image.
    """
    first, *others = neighbours.unbind(1)
    total = _sweep_map(first, reach, height, width)
    for sweep in others:
        total = total.index_select(0, _sweep_map(sweep, reach, height, width))
    return total


def glass_blur(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Filter, move the pixels, filter again; 8 bits between the stages."""
    sigma, reach, _ = setting.constants
    smooth = to_bytes(gaussian_filter(images.float(), sigma))
    source = scatter_map(draws["neighbours"], int(reach), setting.height, setting.width)
    moved = torch.empty_like(smooth)
    for channel in range(3):
        plane = smooth[:, channel].reshape(-1).index_select(0, source)
        moved[:, channel] = plane.view(-1, setting.height, setting.width)
    return to_bytes(gaussian_filter(moved.float(), sigma))
