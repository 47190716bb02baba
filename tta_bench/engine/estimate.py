# SPDX-License-Identifier: Apache-2.0
"""Estimates of how long cells will take, from the nearest finished cells of a store, with the error on past cells."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tta_bench.spec import Cell

LIKENESS: tuple[tuple[str, Callable[[Cell], tuple[object, ...]]], ...] = (
    (
        "the same method, model, dataset and batch size",
        lambda cell: (*_method(cell), cell.dataset, cell.batch_size),
    ),
    ("the same method, model and batch size", lambda cell: (*_method(cell), cell.batch_size)),
    ("the same method and model", lambda cell: _method(cell)),
    ("the same method", lambda cell: (cell.method, cell.device, cell.precision)),
)
"""Criteria that make a cell like another, strictest first; the variant counts where there is one of the same."""


class Past(NamedTuple):
    """The cost of a finished cell.

    Attributes:
        cell: The cell.
        machine: Name of the device that it ran on.
        seconds: Per image, with loading.
        row_bytes: Bytes of its records per image.
        images: How many images that was measured on.
    """

    cell: Cell
    machine: str
    seconds: float
    row_bytes: float
    images: int


class Estimate(NamedTuple):
    """Seconds per image of a cell, and from how many cells that are how like it; None: no cell is like it."""

    seconds: float | None
    cells: int = 0
    likeness: str = ""


def _method(cell: Cell) -> tuple[object, ...]:
    return cell.method, cell.model, cell.device, cell.precision, cell.reset


def estimate(cell: Cell, past: Sequence[Past]) -> Estimate:
    """Return the median of the cells that are most like one.

    Args:
        cell: The cell.
        past: Finished cells.
    """
    for likeness, key in LIKENESS:
        alike = [one for one in past if key(one.cell) == key(cell)]
        same = [one for one in alike if one.cell.variant == cell.variant]
        chosen = same or alike
        if chosen:
            return Estimate(statistics.median(one.seconds for one in chosen), len(chosen), likeness)
    return Estimate(None)


class PastError(NamedTuple):
    """The error of the estimates of finished cells, each from all others.

    Attributes:
        cells: How many could be estimated.
        median: Half of them were off by no more than this factor (1: exact).
        most: Nine in ten were off by no more than this one.
    """

    cells: int
    median: float
    most: float


def error_on_the_past(past: Sequence[Past]) -> PastError | None:
    """Return how far estimates are off where the truth is known; None where fewer than two cells are alike."""
    factors = []
    for index, one in enumerate(past):
        found = estimate(one.cell, [*past[:index], *past[index + 1 :]]).seconds
        if found:
            factors.append(max(found / one.seconds, one.seconds / found))
    if not factors:
        return None
    factors.sort()
    return PastError(
        len(factors), statistics.median(factors), factors[min(len(factors) - 1, 9 * len(factors) // 10)]
    )
