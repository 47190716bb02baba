# SPDX-License-Identifier: Apache-2.0
"""The sixteen PocketScenes objects as signed distance fields.

Every field is built from additions, products, comparisons and square roots only, in float64: libraries differ in
their last bits at most, which is far too little to move a pixel to another byte. The y axis points up, and an object
fills about [-0.9, 0.9] in both directions. Distances are negative inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import cos, pi, sin
from typing import NamedTuple

import torch
from torch import Tensor

from tta_bench.pocket.scenes.spec import CLASS_NAMES


class Parts(NamedTuple):
    """Hold the two parts of an object; ``detail`` is painted over ``body`` in the accent colour."""

    body: Tensor
    detail: Tensor | None = None


RGB = tuple[float, float, float]
ACCENTS: dict[str, RGB] = {
    "ball": (0.97, 0.96, 0.92), "heart": (1.0, 0.92, 0.92), "house": (0.25, 0.16, 0.12),
    "tree": (0.40, 0.25, 0.13), "fish": (0.05, 0.05, 0.08), "mushroom": (0.96, 0.91, 0.80),
    "boat": (0.97, 0.96, 0.90), "flower": (0.98, 0.80, 0.15), "umbrella": (0.30, 0.20, 0.15),
    "cup": (0.24, 0.13, 0.08),
}  # fmt: skip


def circle(x: Tensor, y: Tensor, cx: float, cy: float, r: float) -> Tensor:
    """Return the distance to a disc."""
    u, v = x - cx, y - cy
    return (u * u + v * v).sqrt() - r


def ellipse(x: Tensor, y: Tensor, cx: float, cy: float, a: float, b: float) -> Tensor:
    """Return an approximate distance to an ellipse with half-axes ``a`` and ``b``."""
    u, v = (x - cx) / a, (y - cy) / b
    return ((u * u + v * v).sqrt() - 1) * min(a, b)


def box(x: Tensor, y: Tensor, cx: float, cy: float, a: float, b: float) -> Tensor:
    """Return the distance to an upright box with half-sides ``a`` and ``b``."""
    u, v = (x - cx).abs() - a, (y - cy).abs() - b
    p, q = u.clamp(min=0), v.clamp(min=0)
    return (p * p + q * q).sqrt() + torch.maximum(u, v).clamp(max=0)


def convex(x: Tensor, y: Tensor, corners: Sequence[tuple[float, float]]) -> Tensor:
    """Return an approximate distance to a convex polygon whose corners run anticlockwise."""
    planes = []
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        nx, ny = by - ay, ax - bx
        length = (nx * nx + ny * ny) ** 0.5
        planes.append((x - ax) * (nx / length) + (y - ay) * (ny / length))
    field: Tensor = reduce(torch.maximum, planes)
    return field


def union(*fields: Tensor) -> Tensor:
    """Return the field of a union."""
    return reduce(torch.minimum, fields)


def without(field: Tensor, hole: Tensor) -> Tensor:
    """Return the field with a hole cut out."""
    return torch.maximum(field, -hole)


def _ball(x: Tensor, y: Tensor) -> Parts:
    body = circle(x, y, 0, 0, 0.86)
    seams = union(*(circle(x, y, side * 1.15, 0, 0.78).abs() - 0.07 for side in (-1, 1)))
    return Parts(body, torch.maximum(seams, body + 0.05))


def _star(x: Tensor, y: Tensor) -> Parts:
    tips = [(0.95 * sin(2 * pi * k / 5), 0.95 * cos(2 * pi * k / 5) - 0.05) for k in range(5)]
    notches = [
        (0.42 * sin(2 * pi * (k + 0.5) / 5), 0.42 * cos(2 * pi * (k + 0.5) / 5) - 0.05) for k in range(5)
    ]
    # Each kite (notch, tip, notch, and a point beyond the centre, so that neighbours overlap) is convex.
    behind = [(-0.4 * tx, -0.4 * (ty + 0.05) - 0.05) for tx, ty in tips]
    kites = [convex(x, y, [behind[k], notches[k], tips[k], notches[k - 1]]) for k in range(5)]
    return Parts(union(*kites) - 0.03)


def _heart(x: Tensor, y: Tensor) -> Parts:
    h, m = 0.5 * 2**0.5, 0.25 * 2**0.5
    square = convex(x, y, [(0, -0.12 - h), (h, -0.12), (0, -0.12 + h), (-h, -0.12)])
    lobes = union(circle(x, y, m, m - 0.12, 0.5), circle(x, y, -m, m - 0.12, 0.5))
    return Parts(union(square, lobes), ellipse(x, y, -0.42, 0.36, 0.15, 0.12))


def _moon(x: Tensor, y: Tensor) -> Parts:
    return Parts(without(circle(x, y, -0.08, 0, 0.88), circle(x, y, 0.36, 0.14, 0.72)))


def _ring(x: Tensor, y: Tensor) -> Parts:
    return Parts(circle(x, y, 0, 0, 0.66).abs() - 0.2)


def _cross(x: Tensor, y: Tensor) -> Parts:
    return Parts(union(box(x, y, 0, 0, 0.86, 0.27), box(x, y, 0, 0, 0.27, 0.86)))


def _arrow(x: Tensor, y: Tensor) -> Parts:
    head = convex(x, y, [(0.08, -0.66), (0.92, 0), (0.08, 0.66)])
    return Parts(union(head, box(x, y, -0.4, 0, 0.5, 0.22)))


def _house(x: Tensor, y: Tensor) -> Parts:
    roof = convex(x, y, [(-0.92, 0.1), (0.92, 0.1), (0, 0.88)])
    openings = union(box(x, y, -0.24, -0.58, 0.16, 0.27), box(x, y, 0.3, -0.32, 0.16, 0.16))
    return Parts(union(roof, box(x, y, 0, -0.38, 0.7, 0.48)), openings)


def _tree(x: Tensor, y: Tensor) -> Parts:
    tiers = [(0.1, 0.92, 0.46), (-0.26, 0.55, 0.62), (-0.62, 0.2, 0.78)]
    crown = union(*(convex(x, y, [(-w, low), (w, low), (0, top)]) for low, top, w in tiers))
    return Parts(crown, torch.maximum(box(x, y, 0, -0.74, 0.15, 0.2), -(crown - 0.01)))


def _fish(x: Tensor, y: Tensor) -> Parts:
    tail = union(
        convex(x, y, [(-0.42, 0.0), (-0.92, 0.52), (-0.72, 0.0)]),
        convex(x, y, [(-0.42, 0.0), (-0.72, 0.0), (-0.92, -0.52)]),
    )
    fin = convex(x, y, [(-0.15, 0.36), (0.32, 0.36), (-0.1, 0.68)])
    return Parts(union(ellipse(x, y, 0.22, 0, 0.7, 0.46), tail, fin), circle(x, y, 0.56, 0.12, 0.11))


def _mushroom(x: Tensor, y: Tensor) -> Parts:
    cap = torch.maximum(ellipse(x, y, 0, -0.06, 0.9, 0.86), -0.06 - y)
    stem = torch.maximum(ellipse(x, y, 0, -0.42, 0.3, 0.54), y + 0.06)
    spots = union(
        circle(x, y, -0.4, 0.26, 0.15), circle(x, y, 0.12, 0.52, 0.16), circle(x, y, 0.5, 0.18, 0.13)
    )
    return Parts(cap, union(stem, spots))


def _cup(x: Tensor, y: Tensor) -> Parts:
    bowl = convex(x, y, [(-0.5, -0.78), (0.24, -0.78), (0.46, 0.62), (-0.72, 0.62)])
    handle = torch.maximum(ellipse(x, y, 0.42, 0.02, 0.42, 0.36).abs() - 0.09, 0.3 - x)
    drink = ellipse(x, y, -0.13, 0.62, 0.48, 0.12)
    return Parts(union(bowl, handle, ellipse(x, y, -0.13, 0.62, 0.6, 0.19)), drink)


def _boat(x: Tensor, y: Tensor) -> Parts:
    hull = convex(x, y, [(-0.52, -0.82), (0.52, -0.82), (0.9, -0.34), (-0.9, -0.34)])
    mast = box(x, y, 0, 0.2, 0.06, 0.6)
    sails = union(
        convex(x, y, [(0.1, -0.2), (0.74, -0.2), (0.1, 0.86)]),
        convex(x, y, [(-0.6, -0.2), (-0.1, -0.2), (-0.1, 0.62)]),
    )
    return Parts(union(hull, mast), sails)


def _flower(x: Tensor, y: Tensor) -> Parts:
    petals = [circle(x, y, 0.52 * sin(2 * pi * k / 6), 0.52 * cos(2 * pi * k / 6), 0.33) for k in range(6)]
    return Parts(union(*petals, circle(x, y, 0, 0, 0.4)), circle(x, y, 0, 0, 0.27))


def _umbrella(x: Tensor, y: Tensor) -> Parts:
    dome = torch.maximum(ellipse(x, y, 0, 0.02, 0.92, 0.84), 0.02 - y)
    scallops = union(*(circle(x, y, cx, -0.06, 0.27) for cx in (-0.61, 0.0, 0.61)))
    shaft = box(x, y, 0, -0.3, 0.06, 0.42)
    hook = torch.maximum(circle(x, y, 0.17, -0.7, 0.17).abs() - 0.07, y + 0.68)
    return Parts(without(dome, scallops), torch.maximum(union(shaft, hook), -dome))


def _key(x: Tensor, y: Tensor) -> Parts:
    bow = circle(x, y, -0.52, 0, 0.3).abs() - 0.13
    teeth = union(box(x, y, 0.52, -0.24, 0.09, 0.2), box(x, y, 0.79, -0.22, 0.1, 0.24))
    return Parts(union(bow, box(x, y, 0.36, 0, 0.54, 0.11), teeth))


OBJECTS: dict[str, Callable[[Tensor, Tensor], Parts]] = {
    "ball": _ball, "star": _star, "heart": _heart, "moon": _moon, "ring": _ring, "cross": _cross,
    "arrow": _arrow, "house": _house, "tree": _tree, "fish": _fish, "mushroom": _mushroom, "cup": _cup,
    "boat": _boat, "flower": _flower, "umbrella": _umbrella, "key": _key,
}  # fmt: skip
FAR = 9.0


def distance_fields(labels: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the fields of body and detail of each image's object.

    Args:
        labels: (N,) class indices.
        x: (N, H, W) object coordinates, to the right.
        y: (N, H, W) object coordinates, upwards.

    Returns:
        Two (N, H, W) fields; where an object has no detail its field is ``FAR`` everywhere.
    """
    body, detail = torch.empty_like(x), torch.full_like(x, FAR)
    for k in sorted(set(labels.tolist())):
        rows = (labels == k).nonzero().flatten()
        parts = OBJECTS[CLASS_NAMES[k]](x[rows], y[rows])
        body[rows] = parts.body
        if parts.detail is not None:
            detail[rows] = parts.detail
    return body, detail
