# SPDX-License-Identifier: Apache-2.0
"""Cells that differ only in how they score share one pass over the stream: the evidence of each batch is kept.

A `ScoringMethod` parts its step in two, and hyper-parameters that it names in ``scoring`` enter the second part alone.
Where cells that follow one another differ in nothing else, the first keeps what its steps saw and the others score it;
each is charged the time of the whole step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from tta_bench.engine.machine import memory_bytes
from tta_bench.engine.objects import Objects
from tta_bench.spec import Cell
from tta_bench.steps import share_a_pass, way_of

SHARE = 1 / 8
"""Share of the machine's memory that the evidence of one stream may take; larger passes are taken again."""


class Seen(NamedTuple):
    """The evidence of one step.

    Attributes:
        evidence: From `ScoringMethod.observe`.
        seconds: That observing took.
    """

    evidence: Mapping[str, Tensor]
    seconds: float


class Evidence:
    """The evidence of one pass and its probed memory, by the first row of each step.

    Attributes:
        known: Whether the pass is over, so that cells only score.
    """

    def __init__(self) -> None:
        self.known = False
        self.peaks: dict[int, float | None] = {}
        self._seen: dict[int, Seen] = {}
        self._bytes, self._fits = 0, True

    def at(self, row: int) -> Seen:
        """Return what the step that begins with a row saw, in a pass that is over."""
        return self._seen[row]

    def put(self, row: int, seen: Seen) -> None:
        """Keep what a step saw; a pass that does not fit into memory is let go."""
        if not self._fits:
            return
        before = self._seen.get(row)
        self._seen[row] = seen
        self._bytes += _bytes(seen) - (_bytes(before) if before else 0)
        device = next(iter(seen.evidence.values())).device
        if self._bytes > SHARE * memory_bytes(device):
            self._seen, self._fits = {}, False

    def over(self, *, whole: bool) -> None:
        """Note that the pass is over; evidence of a part of the stream is of no use."""
        self.known = whole and self._fits


def _bytes(seen: Seen) -> int:
    return sum(one.numel() * one.element_size() for one in seen.evidence.values())


class Passes:
    """The passes of a run over cells in order.

    Args:
        objects: The objects behind the cells.
        cells: The cells.
    """

    def __init__(self, objects: Objects, cells: Sequence[Cell]) -> None:
        self._objects, self._cells = objects, tuple(cells)
        self._of: Cell | None = None
        self._evidence: Evidence | None = None

    def evidence(self, cell: Cell) -> Evidence | None:
        """Return the evidence that a cell scores or leaves to those behind it; None if it is alone."""
        if self._of is None or not self._together(self._of, cell):
            behind = self._cells[self._cells.index(cell) + 1 :]
            shared = bool(behind) and self._together(cell, behind[0])
            self._of, self._evidence = cell, Evidence() if shared else None
        elif self._evidence is not None and not self._evidence.known:  # it was left half way, or did not fit
            self._evidence = Evidence()
        return self._evidence

    def _together(self, first: Cell, second: Cell) -> bool:
        if _but_for_scoring(first) != _but_for_scoring(second):
            return False
        one, other = self._objects.method(first), self._objects.method(second)
        return share_a_pass(one, other) and way_of(one, per_image=first.reset == "image") in (
            "batch",
            "native",
        )


def _but_for_scoring(cell: Cell) -> Cell:
    return replace(cell, hyperparameters={}, variant="", preset="")
