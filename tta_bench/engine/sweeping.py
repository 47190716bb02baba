# SPDX-License-Identifier: Apache-2.0
"""Cells of a grid of hyper-parameters: each point on every stream, marked as tuned on test labels."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from tta_bench.engine.live import Live
from tta_bench.engine.planning import plan
from tta_bench.spec import Cell, Request
from tta_bench.spec.grid import grid_points

TUNED = "tuned-on-test"


class Sweep(NamedTuple):
    """The cells of a sweep.

    Attributes:
        cells: Those of one stream side by side, so that its images are read once and points can share a pass.
        points: How many points of the grid they are.
    """

    cells: list[Cell]
    points: int


def plan_sweep(request: Request, sample: int | None = None, live: Live | None = None) -> Sweep:
    """Return the cells of every point of a grid.

    Args:
        request: What was asked, with settings that may have several values each.
        sample: How many points to draw at random; None: all.
        live: Objects of this process that some names stand for.

    Raises:
        BadInputError: For the first name or value that cannot be accepted.
    """
    points = grid_points(request.settings, sample)
    chosen = TUNED if request.chosen == "published" else request.chosen
    plans = [plan(replace(request, settings=point, chosen=chosen), live) for point in points]
    cells = [
        replace(cell, looks=len(points)) for side_by_side in zip(*plans, strict=True) for cell in side_by_side
    ]
    return Sweep(list({(cell.label, str(cell.identity())): cell for cell in cells}.values()), len(points))
