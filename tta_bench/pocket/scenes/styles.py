# SPDX-License-Identifier: Apache-2.0
"""The two drawn styles of PocketScenes: pencil on paper, and flat posters."""

from __future__ import annotations

import torch
from torch import Tensor

from tta_bench.pocket.scenes.draws import Draws, real
from tta_bench.pocket.scenes.fields import (
    cloud_noise,
    coverage,
    heading,
    mix,
    pixel_grid,
    plane,
    value_noise,
    wave,
)
from tta_bench.pocket.scenes.spec import BACKGROUND_TONE, COLOURS, SIDE
from tta_bench.pocket.scenes.surface import Posed, object_colours


def sketch(draws: Draws, posed: Posed) -> Tensor:
    """Return pencil drawings, (N, 3, H, W): a wobbly grey outline and hatching on paper.

    Args:
        draws: The images' random numbers.
        posed: The placed objects.
    """
    x, y = pixel_grid()
    u = draws["style"]
    wobble = (value_noise(draws, 8) - 0.5) * 1.2
    width = plane(u[:, 0] * 0.5 + 0.75)
    outline = coverage((posed.outline + wobble).abs() - width)
    # A detail is drawn as a thinner outline of its own.
    inner = coverage((posed.detail + wobble).abs() - width * 0.6)
    c, s = heading(plane(u[:, 1] * 0.2 + 0.02))
    lines = wave((x * c + y * s) * plane(u[:, 2] * 1.5 + 4) + wobble * 0.1)
    hatching = (lines * 0.3 + 0.45).clamp(0, 1) * coverage(posed.body + 0.5) * coverage(-posed.detail)
    ink = torch.maximum(torch.maximum(outline, inner * 0.85), hatching * plane(u[:, 3] * 0.4 + 0.6))
    paper = 0.93 - cloud_noise(draws) * 0.08 - (draws["grain"] - 0.5) * 0.06
    pencil = plane(u[:, 4] * 0.15 + 0.15) + (draws["grain"] - 0.5) * 0.15
    grey = mix(paper, pencil, ink)
    tint = real((1.0, 0.99, 0.96))[:, None, None]
    return grey[:, None] * tint


def _backdrop(draws: Draws, background: Tensor) -> Tensor:
    """Return flat backdrops with one simple figure: a sun, or broad rays."""
    x, y = pixel_grid()
    u = draws["style"]
    tones = real(list(BACKGROUND_TONE.values()))[background]
    tones = (tones * 1.1 + 0.05).clamp(0, 1)
    lighter = tones + (1 - tones) * 0.35
    c, s = heading(plane(u[:, 0]))
    bands = (wave((x * c + y * s) * plane(u[:, 1] + 0.7) + plane(u[:, 2])) * 10 + 0.5).clamp(0, 1)
    dx, dy = x - plane(u[:, 1] * 2 - 1), y - plane(u[:, 2] * 2 - 1)
    sun = coverage(((dx * dx + dy * dy).sqrt() - plane(u[:, 3] * 0.5 + 0.4)) * (SIDE / 2))
    figure = torch.where(plane(u[:, 4]) < 0.5, bands, sun)
    return mix(plane(tones), plane(lighter), figure[:, None])


def poster(draws: Draws, posed: Posed, mask: Tensor, kinds: tuple[Tensor, Tensor], accent: Tensor) -> Tensor:
    """Return flat posters, (N, 3, H, W): few tones, a dark outline, no light and no grain.

    Args:
        draws: The images' random numbers.
        posed: The placed objects.
        mask: (N, H, W) where the second tone of the texture shows.
        kinds: Colour and background index of each image, each (N,).
        accent: (N, 3) colour of the detail.
    """
    colour, background = kinds
    base = real(list(COLOURS.values()))[colour]
    image = mix(_backdrop(draws, background), object_colours(base, mask, 0.3), coverage(posed.body)[:, None])
    image = mix(image, plane(accent), coverage(posed.detail)[:, None])
    image = (image * 4 + 0.5).floor() / 4
    width = plane(draws["style"][:, 5] * 0.5 + 0.5)
    line = torch.maximum(coverage(posed.outline.abs() - width), coverage(posed.detail.abs() - width * 0.5))
    ink = real((0.09, 0.07, 0.12))[:, None, None]
    return mix(image, ink, line[:, None])
