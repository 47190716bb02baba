# SPDX-License-Identifier: Apache-2.0
"""Backgrounds of PocketScenes, and the clutter and occluders around the object."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tta_bench.pocket.scenes.draws import REAL, Draws, real
from tta_bench.pocket.scenes.fields import (
    cloud_noise,
    coverage,
    heading,
    mix,
    pixel_grid,
    plane,
    smooth,
    value_noise,
    wave,
)
from tta_bench.pocket.scenes.shapes import RGB
from tta_bench.pocket.scenes.spec import BACKGROUNDS, COLOURS, SIDE, Look


def tones(*stops: RGB, by: Tensor) -> Tensor:
    """Return a colour ramp over evenly spaced stops, (N, 3, H, W), from a field in [0, 1]."""
    position = by.clamp(0, 1)[:, None] * (len(stops) - 1)
    image = real(stops[0])[:, None, None].expand(-1, SIDE, SIDE)
    for k, stop in enumerate(stops[1:]):
        image = mix(image, real(stop)[:, None, None], (position - k).clamp(0, 1))
    return image


def _sky(draws: Draws) -> Tensor:
    _, y = pixel_grid()
    image = tones((0.80, 0.90, 0.97), (0.55, 0.76, 0.95), (0.33, 0.58, 0.89), by=(y + 1) / 2)
    cover = plane(draws["scenery"][:, 0]) * 0.2 + 0.48
    clouds = ((cloud_noise(draws) - cover) * 6).clamp(0, 1)
    return mix(image, real(1), clouds[:, None] * 0.85)


def _grass(draws: Draws) -> Tensor:
    grain = draws["grain"]
    blades = (grain + grain.roll(1, dims=1) + grain.roll(2, dims=1)) / 3
    light = cloud_noise(draws) * 0.55 + blades * 0.45
    return tones((0.08, 0.26, 0.07), (0.25, 0.50, 0.16), (0.50, 0.72, 0.28), by=smooth(light, 0.2, 0.8))


def _sand(draws: Draws) -> Tensor:
    x, y = pixel_grid()
    u = draws["scenery"]
    bend = value_noise(draws, 4) * 0.9
    ripples = wave(y * plane(u[:, 0] * 1.5 + 2) + x * plane(u[:, 1] - 0.5) + bend + plane(u[:, 2]))
    light = 0.5 + ripples * 0.2 + (draws["grain"] - 0.5) * 0.5
    return tones((0.66, 0.53, 0.34), (0.85, 0.74, 0.54), (0.96, 0.89, 0.72), by=light)


def _water(draws: Draws) -> Tensor:
    x, y = pixel_grid()
    u = draws["scenery"]
    bend = value_noise(draws, 8) * 0.8 + wave(x * plane(u[:, 0] + 0.5) + plane(u[:, 1])) * 0.15
    swell = wave(y * plane(u[:, 2] * 1.5 + 2.5) + bend + plane(u[:, 3]))
    light = 0.45 + swell * 0.25 + y * 0.1 + (cloud_noise(draws) - 0.5) * 0.5
    image = tones((0.03, 0.22, 0.40), (0.13, 0.44, 0.62), (0.38, 0.68, 0.78), by=light)
    return mix(image, real(1), smooth(swell + draws["grain"] * 0.5, 1.15, 1.5)[:, None] * 0.7)


def _brick(draws: Draws) -> Tensor:
    x, y = pixel_grid()
    u = draws["scenery"]
    rows = (y + 1) * plane(u[:, 0] * 1.0 + 2.2) + plane(u[:, 1])
    row = rows.floor()
    columns = (x + 1) * plane(u[:, 2] * 0.5 + 1.2) + plane(u[:, 3]) + row * 0.5
    # A brick's own tone: an exact hash of its row and column.
    tone = row * 0.7548777 + columns.floor() * 0.5698403
    tone = tone - tone.floor()
    across, along = rows - row, columns - columns.floor()
    mortar = torch.maximum(smooth(across, 0.72, 0.86), smooth(along, 0.84, 0.93))
    light = tone * 0.6 + draws["grain"] * 0.25 + value_noise(draws, 8) * 0.15
    image = tones((0.42, 0.19, 0.15), (0.62, 0.31, 0.24), (0.76, 0.45, 0.34), by=light)
    return mix(image, real((0.80, 0.77, 0.72))[:, None, None], mortar[:, None] * 0.85)


def _night(draws: Draws) -> Tensor:
    _, y = pixel_grid()
    light = (1 - y) * 0.35 + (cloud_noise(draws) - 0.5) * 0.6
    image = tones((0.02, 0.02, 0.09), (0.07, 0.08, 0.24), (0.24, 0.17, 0.40), by=light)
    grain = draws["grain"]
    stars = (grain > 0.982).to(REAL) * ((grain - 0.982) * 40 + 0.3)
    return mix(image, real((1.0, 0.98, 0.88))[:, None, None], stars[:, None])


_PAINTERS: dict[str, Callable[[Draws], Tensor]] = {
    "sky": _sky, "grass": _grass, "sand": _sand, "water": _water, "brick": _brick, "night": _night,
}  # fmt: skip


def paint_background(draws: Draws, kinds: Tensor) -> Tensor:
    """Return the backgrounds, (N, 3, H, W) in [0, 1].

    Args:
        draws: The images' random numbers.
        kinds: (N,) indices into ``BACKGROUNDS``.
    """
    image = torch.empty(len(kinds), 3, SIDE, SIDE, dtype=REAL)
    for k in sorted(set(kinds.tolist())):
        rows = (kinds == k).nonzero().flatten()
        image[rows] = _PAINTERS[BACKGROUNDS[k]](draws.rows(rows))
    return image * plane(draws.between("tint", 0.9, 1.1))


def add_clutter(image: Tensor, draws: Draws, look: Look) -> Tensor:
    """Return the image with small blobs and bars strewn over it.

    Args:
        image: (N, 3, H, W).
        draws: The images' random numbers.
        look: The look of the split, which bounds the number of things.
    """
    x, y = pixel_grid()
    low, high = look.clutter
    count = low + draws.choice("clutter_count", high - low + 1)
    palette = real(list(COLOURS.values()))
    for k in range(high):
        u = draws["clutter"][:, k]
        c, s = heading(plane(u[:, 0]))
        dx, dy = x - plane(u[:, 1] * 2 - 1), y - plane(u[:, 2] * 2 - 1)
        a, b = dx * c + dy * s, dy * c - dx * s
        size = plane(u[:, 3] * 0.13 + 0.07)
        thin = plane(u[:, 4] * 0.5 + 0.5)
        v = b / thin
        blob = (a * a + v * v).sqrt() - size
        bar = torch.maximum(a.abs() - size * 1.8, b.abs() - size * 0.35)
        field = torch.where(plane(u[:, 5]) < 0.6, blob, bar)
        colour = palette[(u[:, 6] * len(palette)).long()] * (u[:, 7:8] * 0.5 + 0.4)
        shown = (count > k).to(REAL)
        cover = coverage(field * (SIDE / 2)) * plane(shown) * 0.9
        shade = 1 - (b / size).clamp(-1, 1) * -0.15
        image = mix(image, plane(colour) * shade[:, None], cover[:, None])
    return image


def add_occluder(image: Tensor, draws: Draws, look: Look, centre: tuple[Tensor, Tensor]) -> Tensor:
    """Return the image with, in some of the images, a bar in front of the object.

    Args:
        image: (N, 3, H, W).
        draws: The images' random numbers.
        look: The look of the split, which gives the probability and the width.
        centre: Centre of the object, x and y, each (N,) in frame halves.
    """
    x, y = pixel_grid()
    u = draws["occluder"]
    c, s = heading(plane(u[:, 0]))
    across = (x - plane(centre[0])) * c + (y - plane(centre[1])) * s - plane(u[:, 1] * 0.5 - 0.25)
    half = plane(u[:, 2] * (look.bar[1] - look.bar[0]) + look.bar[0])
    shown = plane((u[:, 3] < look.occluded).to(REAL))
    grey, warm = u[:, 4] * 0.4 + 0.25, u[:, 5] * 0.12
    colour = torch.stack([grey + warm, grey, grey - warm], dim=1)
    round_shade = 1.15 - (across / half).clamp(-1, 1).abs() * 0.45
    cover = coverage((across.abs() - half) * (SIDE / 2)) * shown
    return mix(image, plane(colour) * round_shade[:, None], cover[:, None])
