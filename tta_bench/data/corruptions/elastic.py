# SPDX-License-Identifier: Apache-2.0
"""Elastic transform: pixels displaced by smoothed noise, in two published variants."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from tta_bench.data.corruptions.base import Arrays, Draws, Setting, to_bytes
from tta_bench.data.corruptions.constants import ELASTIC_LOCAL_ALPHA
from tta_bench.data.corruptions.filters import gaussian_filter
from tta_bench.data.corruptions.rng import Stream

_TRUNCATE = 3.0
_NOMINAL = 244 / 224


class Warp(NamedTuple):
    """The lengths of a warp, in pixels: noise bound, smoothing, and the jitter of the affine map (None: no map).

    `gain` multiplies the smoothed noise.
    """

    bound: float
    gain: float
    sigma: tuple[float, float]
    jitter: float | None


def warp_of(setting: Setting) -> Warp:
    """Return the lengths of the chosen variant.

    The constants of the original are fractions of a nominal size, 244 for 224 x 224 images at imagenet scale
    and the size itself elsewhere; for other sizes the ratio is kept, by the shorter side.
    """
    height, width = setting.height, setting.width
    default = "imagecorruptions" if setting.scale == "imagenet" else "original"
    if (setting.options.elastic or default) == "imagecorruptions":
        gain = ELASTIC_LOCAL_ALPHA[setting.severity - 1]
        return Warp(0.005 * height, gain, (0.01 * height, 0.01 * width), None)
    size = min(height, width) * (_NOMINAL if setting.scale == "imagenet" else 1.0)
    gain, sigma, jitter = (size * constant for constant in setting.constants)
    return Warp(1.0, gain, (sigma, sigma), jitter)


def draw_elastic(stream: Stream, setting: Setting) -> Arrays:
    """Draw the noise of the columns and rows (2, H, W) and, for the affine map, three point offsets (3, 2)."""
    warp = warp_of(setting)
    drawn: Arrays = {} if warp.jitter is None else {"jitter": stream.uniform(-warp.jitter, warp.jitter, 3, 2)}
    drawn["noise"] = stream.uniform(-warp.bound, warp.bound, 2, setting.height, setting.width)
    return drawn


def _sample(x: Tensor, columns: Tensor, rows: Tensor, border: Literal["reflect", "mirror"]) -> Tensor:
    """Return x at fractional positions (N, H, W), bilinear."""
    height, width = x.shape[2:]
    corners = border == "mirror"
    grid = rows.new_empty(*rows.shape, 2)
    for axis, (places, size) in enumerate(((columns, width), (rows, height))):
        # From pixels to the span from -1 to 1 between the outermost pixels (mirror) or their outer edges.
        span = size - 1 if corners else size
        torch.mul(places, 2 / span, out=grid[..., axis]).add_((0 if corners else 1 / size) - 1)
    return grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=corners)


def _inverse_affine(jitter: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    """Return the (2, 3) map from output (x, y) to input (x, y) that undoes the shift of three points."""
    reach = min(height, width) // 3
    # The generator takes the point (height / 2, width / 2) as (x, y); it only matters for oblong images.
    centre = np.array([height // 2, width // 2], dtype=np.float64)
    points = centre + reach * np.array([[1, 1], [1, -1], [-1, -1]], dtype=np.float64)
    moved = np.column_stack((points + jitter, np.ones(3)))
    return np.asarray(np.linalg.solve(moved, points).T)


def _affine_positions(jitter: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the input columns and rows (N, H, W) of the affine maps."""
    maps = np.stack([_inverse_affine(one, height, width) for one in jitter.double().cpu().numpy()])
    table = torch.as_tensor(maps, device=jitter.device)[:, :, :, None, None]
    y = torch.arange(height, device=jitter.device, dtype=torch.float64)[:, None]
    x = torch.arange(width, device=jitter.device, dtype=torch.float64)
    columns, rows = ((table[:, i, 0] * x + table[:, i, 1] * y + table[:, i, 2]).float() for i in (0, 1))
    return columns, rows


def elastic_transform(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Displace the pixels by smoothed noise, in the original variant after a random affine map."""
    height, width = setting.height, setting.width
    warp = warp_of(setting)
    levels = images.float()
    if warp.jitter is not None:
        levels = _sample(levels, *_affine_positions(draws["jitter"], height, width), "mirror")
    if warp.gain:
        shifts = gaussian_filter(draws["noise"], warp.sigma, "reflect", _TRUNCATE).mul_(warp.gain)
        columns = shifts[:, 0].add_(torch.arange(width, device=images.device))
        rows = shifts[:, 1].add_(torch.arange(height, device=images.device)[:, None])
        levels = _sample(levels, columns, rows, "reflect")
    return to_bytes(levels)
