# SPDX-License-Identifier: Apache-2.0
"""Spatter: drops of water or mud on the lens."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from tta_bench.data.corruptions.base import Arrays, Draws, Setting, to_bytes
from tta_bench.data.corruptions.filters import gaussian_filter
from tta_bench.data.corruptions.rng import Floats, Stream

Ints: TypeAlias = npt.NDArray[np.int32]

_WATER: Final = (175, 238, 238)
_MUD: Final = (63, 42, 20)
_MUD_FLOOR: Final = 0.8
_EDGE_LOW, _EDGE_HIGH = 50, 150
_REACH: Final = 20
# Lengths of a step to a neighbour, a diagonal step and a knight's move, in 1 / 65536 pixel.
_UNIT, _DIAGONAL, _KNIGHT = 65536, 91750, 143976


def _gradients(levels: Ints) -> tuple[Ints, Ints]:
    """Return the horizontal and vertical Sobel gradients; the border repeats the edge."""
    p = np.pad(levels, 1, mode="edge")
    tall = p[:-2] + 2 * p[1:-1] + p[2:]
    wide = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
    return tall[:, 2:] - tall[:, :-2], wide[2:] - wide[:-2]


def find_edges(levels: Ints) -> npt.NDArray[np.bool_]:
    """Return the Canny edges (H, W) with thresholds 50 and 150 on the L1 norm of the Sobel gradient.

    Args:
        levels: (H, W) values 0 to 255.
    """
    gx, gy = _gradients(levels)
    norm = np.abs(gx) + np.abs(gy)
    m = np.pad(norm, 1)
    height, width = levels.shape

    def beside(row: int, column: int) -> Ints:
        return m[1 + row : 1 + row + height, 1 + column : 1 + column + width]

    ax, ay = 13573 * np.abs(gx), np.abs(gy) << 15
    flat, steep = ay < ax, ay > ax + (np.abs(gx) << 16)
    falling = (gx ^ gy) >= 0
    along_row = (norm > beside(0, -1)) & (norm >= beside(0, 1))
    along_column = (norm > beside(-1, 0)) & (norm >= beside(1, 0))
    main = (norm > beside(-1, -1)) & (norm > beside(1, 1))
    other = (norm > beside(-1, 1)) & (norm > beside(1, -1))
    across = ~(flat | steep) & ((falling & main) | (~falling & other))
    weak = (norm > _EDGE_LOW) & ((flat & along_row) | (steep & along_column) | across)
    labels, count = ndimage.label(weak, structure=np.ones((3, 3)))
    strong = np.zeros(count + 1, dtype=np.bool_)
    strong[labels[weak & (norm > _EDGE_HIGH)]] = True
    strong[0] = False
    edges: npt.NDArray[np.bool_] = strong.take(labels)
    return edges


def chamfer_distance(edges: npt.NDArray[np.bool_]) -> Ints:
    """Return the chamfer distance (H, W) to the nearest edge pixel, at most 20, in 1 / 65536 pixel.

    The length of a path of steps, diagonals and knight's moves is a polygonal norm: the largest of four linear
    forms of the offsets. So a distance within each row comes first, and the nearest of 41 rows after it.
    """
    along = np.where(edges, 0, _REACH + 1).astype(np.int32)
    for step in (1, 2, 4, 8, 16):
        shifted = along.copy()
        np.minimum(shifted[:, step:], along[:, :-step] + step, out=shifted[:, step:])
        np.minimum(shifted[:, :-step], along[:, step:] + step, out=shifted[:, :-step])
        along = shifted
    shallow, steep_a, steep_b = _KNIGHT - 2 * _UNIT, _KNIGHT - _DIAGONAL, 2 * _DIAGONAL - _KNIGHT
    forms = [along * factor for factor in (_UNIT, steep_a, steep_b, shallow)]
    height, best = len(edges), forms[0]
    best = np.maximum(best, 0)
    for down in range(1, min(_REACH, height - 1) + 1):
        length = forms[0] + shallow * down
        for form, factor in zip(forms[1:], (steep_b, steep_a, _UNIT), strict=True):
            np.maximum(length, form + factor * down, out=length)
        np.minimum(best[down:], length[:-down], out=best[down:])
        np.minimum(best[:-down], length[down:], out=best[:-down])
    return np.minimum(best, _REACH * _UNIT)


def _box_sum(values: Ints) -> Ints:
    """Return sums over 3 x 3 pixels; the border mirrors without repeating the edge."""
    p = np.pad(values, 1, mode="reflect")
    rows = p[:-2] + p[1:-1] + p[2:]
    total: Ints = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return total


def _equalise(values: Ints) -> Ints:
    """Return the histogram-equalised values, 0 to 255."""
    counts = np.bincount(values.ravel(), minlength=256)
    first = int(np.flatnonzero(counts)[0])
    rest = values.size - counts[first]
    if not rest:
        return values
    table = np.rint(255 * (np.cumsum(counts) - counts[first]) / rest).astype(np.int32)
    equal: Ints = table.take(values)
    return equal


def _emboss(values: Ints) -> Ints:
    """Return the response, 0 to 255, to the weights (-2 -1 0, -1 1 1, 0 1 2); the border mirrors."""
    p = np.pad(values, 1, mode="reflect")
    diagonal = p[2:, 2:] - p[:-2, :-2]
    return np.asarray(
        (2 * diagonal - p[:-2, 1:-1] - p[1:-1, :-2] + p[1:-1, 1:-1] + p[1:-1, 2:] + p[2:, 1:-1]).clip(0, 255)
    )


def _water(layer: Floats) -> npt.NDArray[np.float64]:
    """Return the brightness of drops (H, W), 1 at the brightest, from the thresholded layer."""
    levels = (layer * 255).astype(np.int32) & 255  # 8-bit wrap-around of values above 1, as published
    near = _box_sum(chamfer_distance(find_edges(levels))) // (9 * _UNIT)
    drops = levels * np.rint(_box_sum(_emboss(_equalise(near))) / 9)
    return np.asarray(drops / max(drops.max(), 1.0))


def spatter_layer(noise: npt.NDArray[Any], setting: Setting) -> npt.NDArray[np.float32]:
    """Return the cover (H, W) of water or mud.

    Args:
        noise: (H, W) normal noise with the mean and deviation of the setting.
        setting: The setting of `spatter`.
    """
    _, _, sigma, threshold, strength, mud = setting.constants
    layer = gaussian_filter(torch.as_tensor(noise).float()[None, None], sigma)
    layer.masked_fill_(layer < threshold, 0)
    if not mud:
        return (_water(layer[0, 0].numpy()) * strength).astype(np.float32)
    cover = gaussian_filter((layer > threshold).float(), strength)
    cover.masked_fill_(cover < _MUD_FLOOR, 0)
    return np.asarray(cover[0, 0].numpy())


def draw_spatter(stream: Stream, setting: Setting) -> Arrays:
    """Draw the noise and make the layer of water or mud from it; the image plays no part in it."""
    mean, deviation = setting.constants[:2]
    noise = stream.normal(setting.height, setting.width) * deviation + mean
    return {"cover": spatter_layer(noise, setting)}


def spatter(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Add the light of water drops, or cover with mud."""
    mud = bool(setting.constants[-1])
    colour = torch.tensor(_MUD if mud else _WATER, device=images.device, dtype=torch.float32)[:, None, None]
    cover = draws["cover"][:, None]
    levels = images * (1 - cover) if mud else images.float()
    return to_bytes(levels + cover * colour)
