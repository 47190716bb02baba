# SPDX-License-Identifier: Apache-2.0
"""The PocketScenes object itself: its pose, its texture, and how light falls on it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tta_bench.pocket.scenes.draws import Draws, real
from tta_bench.pocket.scenes.fields import coverage, heading, mix, pixel_grid, plane, wave
from tta_bench.pocket.scenes.shapes import ACCENTS, distance_fields
from tta_bench.pocket.scenes.spec import CLASS_NAMES, SIDE, Look


class Posed(NamedTuple):
    """Hold an object placed in its frame; fields are (N, H, W), distances in pixels."""

    body: Tensor
    detail: Tensor
    x: Tensor
    y: Tensor
    centre: tuple[Tensor, Tensor]

    @property
    def outline(self) -> Tensor:
        """Return the field of body and detail together."""
        return torch.minimum(self.body, self.detail)


def pose(labels: Tensor, draws: Draws, look: Look) -> Posed:
    """Return the objects of the given classes, turned, sheared, scaled and moved.

    Args:
        labels: (N,) class indices.
        draws: The images' random numbers.
        look: The look of the split.
    """
    grid_x, grid_y = pixel_grid()
    half = draws.between("scale", *look.scale)
    room = (1.06 - half).clamp(0, 0.6)
    centre = (draws["shift"] * 2 - 1) * room[:, None]
    c, s = heading(plane(draws.between("turn", -look.turn, look.turn)))
    dx, dy = grid_x - plane(centre[:, 0]), grid_y - plane(centre[:, 1])
    x, y = (dx * c + dy * s) / plane(half), (dy * c - dx * s) / plane(half)
    aspect = plane(draws.between("aspect", 0.88, 1.12))
    x, y = x / aspect + y * plane(draws.between("shear", -0.15, 0.15)), y * aspect
    x = torch.where(plane(draws["flip"]) < 0.5, x, -x)
    body, detail = distance_fields(labels, x, y)
    pixels = plane(half * (SIDE / 2))
    return Posed(body * pixels, detail * pixels, x, y, (centre[:, 0], centre[:, 1]))


def texture_mask(draws: Draws, kinds: Tensor, posed: Posed) -> Tensor:
    """Return where the second tone of each object's texture shows, (N, H, W) in [0, 1].

    Args:
        draws: The images' random numbers.
        kinds: (N,) indices into ``TEXTURES``.
        posed: The placed objects; textures follow their coordinates.
    """
    u = draws["texture_shape"]
    c, s = heading(plane(u[:, 0]))
    a, b = posed.x * c + posed.y * s, posed.y * c - posed.x * s
    rate = plane(u[:, 1] * 0.6 + 1.3)
    a, b = a * rate + plane(u[:, 2]), b * rate + plane(u[:, 3])
    stripes = (wave(a) * 4 + 0.5).clamp(0, 1)
    checks = (wave(a * 0.9) * wave(b * 0.9) * 8 + 0.5).clamp(0, 1)
    p, q = (a * 1.3).frac().abs() - 0.5, (b * 1.3).frac().abs() - 0.5
    dots = ((0.3 - (p * p + q * q).sqrt()) * 8 + 0.5).clamp(0, 1)
    speckles = ((draws["grain"] - 0.72) * 8).clamp(0, 1)
    shown = torch.zeros_like(a)
    for k, mask in enumerate((stripes, dots, checks, speckles), start=1):
        shown = torch.where(plane(kinds) == k, mask, shown)
    return shown


def object_colours(base: Tensor, mask: Tensor, depth: float = 0.5) -> Tensor:
    """Return the textured colour of each body pixel, (N, 3, H, W).

    Args:
        base: (N, 3) main colour.
        mask: (N, H, W) where the second tone shows.
        depth: How far the second tone is from the first; light colours get a darker one and dark ones a lighter.
    """
    luma = base[:, :1] * 0.3 + base[:, 1:2] * 0.59 + base[:, 2:] * 0.11
    second = torch.where(luma > 0.5, base * (1 - depth), base + (1 - base) * depth)
    return mix(plane(base), plane(second), mask[:, None])


def accents(labels: Tensor) -> Tensor:
    """Return the colour of each object's detail, (N, 3)."""
    return real([ACCENTS.get(name, (0.0, 0.0, 0.0)) for name in CLASS_NAMES])[labels]


def slope(field: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of a field by central differences, to the right and upwards, each (N, H, W)."""
    wide = torch.cat([field[:, :, :1], field, field[:, :, -1:]], dim=2)
    tall = torch.cat([field[:, :1], field, field[:, -1:]], dim=1)
    return (wide[:, :, 2:] - wide[:, :, :-2]) / 2, (tall[:, :-2] - tall[:, 2:]) / 2


def lit(colour: Tensor, draws: Draws, posed: Posed) -> Tensor:
    """Return the object's colours under a light from one side, with a bright rim towards it.

    Args:
        colour: (N, 3, H, W).
        draws: The images' random numbers.
        posed: The placed objects.
    """
    # Light comes from somewhere above: 45 to 135 degrees.
    lx, ly = heading(plane(draws.between("light", 0.125, 0.375)))
    strength = plane(draws.between("shade", 0.6, 1.2))
    gx, gy = slope(posed.body)
    facing = (gx * lx + gy * ly).clamp(-1, 1)
    edge = (1 + posed.body / 3.5).clamp(0, 1)
    slant = (posed.x * lx + posed.y * ly).clamp(-1, 1)
    shade = 1 + strength * (slant * 0.14 + edge * facing * 0.28 - edge * 0.06)
    rim = edge * facing.clamp(min=0) * strength * 0.22
    return mix(colour * shade[:, None], real(1), rim.clamp(0, 1)[:, None])


def cast_shadow(image: Tensor, draws: Draws, posed: Posed) -> Tensor:
    """Return the image darkened by the object's soft shadow.

    Args:
        image: (N, 3, H, W).
        draws: The images' random numbers.
        posed: The placed objects.
    """
    aside = (draws["light"] * 5).floor().long() - 2
    at = torch.arange(SIDE)
    columns = (at[None] - aside[:, None]).clamp(0, SIDE - 1)
    rows = (at - 2).clamp(0, SIDE - 1)
    field = posed.outline[:, rows].gather(2, columns[:, None].expand(-1, SIDE, -1))
    return image * (1 - coverage(field, softness=4.0) * 0.45)[:, None]
