# SPDX-License-Identifier: Apache-2.0
"""The plan of a run: its cells, images, disk and hours, estimated from like cells."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tta_bench.engine.estimate import Estimate, Past, error_on_the_past, estimate
from tta_bench.spec import Cell, subset_size

ROW_BYTES = 100.0
"""Bytes of a record, about, where the store has none yet."""
MANIFEST_BYTES = 8192
MIB = 2**20
Count = Callable[[Cell], int | None]
"""Returns the images of a cell's stream, None where its data are not here."""


class Planned(NamedTuple):
    """One cell that is going to run: its images, None where they cannot be counted, and its estimate."""

    cell: Cell
    images: int | None
    estimate: Estimate

    @property
    def seconds(self) -> float | None:
        """Return how long it will take; None where that is not known."""
        if self.images is None or self.estimate.seconds is None:
            return None
        return self.images * self.estimate.seconds


def plan_of(cells: Sequence[Cell], past: Sequence[Past], count: Count) -> list[Planned]:
    """Return what each cell will take.

    Args:
        cells: The cells.
        past: What finished cells took.
        count: Counts the images of shifts whose number no option says.
    """
    return [Planned(cell, images_of(cell, count), estimate(cell, past)) for cell in cells]


def images_of(cell: Cell, count: Count) -> int | None:
    """Return the images of a cell's stream; None where they cannot be counted."""
    size = None if cell.subset.startswith("robustbench") else subset_size(cell.subset)
    return size * len(cell.shifts) if size is not None else count(cell)


def plan_lines(planned: Sequence[Planned], past: Sequence[Past], workers: int) -> Iterator[str]:
    """Yield a line for each cell and a summary, as ``tta-bench run --dry-run`` prints them.

    Args:
        planned: The cells.
        past: What finished cells took.
        workers: Processes that share them.
    """
    for one in planned:
        images = (
            "images not counted, its data are not here" if one.images is None else f"{one.images:,} images"
        )
        yield f"{one.cell.label} · {images} · {_duration(one.seconds) if one.seconds else 'cost not known'}"
    yield ""
    counted = [one.images for one in planned if one.images is not None]
    yield f"images: {sum(counted):,}" + _but(len(planned) - len(counted), "whose data are not here")
    yield f"disk: {_disk(counted, len(planned), past):,.1f} MiB of records" + _but(
        len(planned) - len(counted), "that are not counted"
    )
    yield from _time(planned, past, workers)


def _time(planned: Sequence[Planned], past: Sequence[Past], workers: int) -> Iterator[str]:
    known = [one.seconds for one in planned if one.seconds is not None]
    if not known:
        yield (
            "time: not known, for the run folder holds no finished cell of any of these methods; a first run with "
            "limit=100 into it gives the costs"
        )
        return
    spread = (
        f", {_duration(max(sum(known) / workers, max(known)))} in {workers} processes" if workers > 1 else ""
    )
    yield f"time: {_duration(sum(known))}{spread}" + _but(
        len(planned) - len(known), "whose cost is not known"
    )
    alike = Counter(one.estimate.likeness for one in planned if one.seconds is not None)
    sources = ", ".join(f"{count} from cells of {likeness}" for likeness, count in alike.most_common())
    machines = ", ".join(sorted({one.machine for one in past}))
    yield f"estimated from {len(past)} finished cells on {machines}: {sources}"
    error = error_on_the_past(past)
    if error is None:
        yield "how far such estimates are off is not known: no two finished cells are alike"
    else:
        yield (
            f"such estimates of {error.cells} finished cells from all others were off by a factor of "
            f"{error.median:.2f} in the middle, and of at most {error.most:.2f} for nine in ten"
        )


def _disk(images: Sequence[int], cells: int, past: Sequence[Past]) -> float:
    row = statistics.median(one.row_bytes for one in past) if past else ROW_BYTES
    return (sum(images) * row + cells * MANIFEST_BYTES) / MIB


def _but(cells: int, why: str) -> str:
    return f", without {cells} cell{'s' if cells > 1 else ''} {why}" if cells else ""


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
