# SPDX-License-Identifier: Apache-2.0
"""Completeness of rows and run folders: the cells that are there out of those planned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from tta_bench.records.store import Store
from tta_bench.reports.load import StoredCell
from tta_bench.spec import Cell, canonical

SHOWN = 3
_VARYING = {"seed", "shifts"}
"""Fields in which the cells of a row differ."""
_CODE = {"method_hash", "plugin_code"}
"""Fields that change with an edit of the code: the plan made after it replaces the one before."""


class Coverage(NamedTuple):
    """The cells that were planned and those that are there.

    Attributes:
        rows: The planned cells of each row, by identity; the key is that of `row_of`.
        planned: The latest plan of each cell, whatever version of its code.
        ended: The cells of these that ended: complete, failed or collapsed.
        under_way: Whether a process of this host is writing one of them.
    """

    rows: Mapping[str, Mapping[str, Cell]]
    planned: Mapping[str, Cell]
    ended: Collection[str]
    under_way: bool = False

    def of_row(self, cell: Cell, shift: str = "") -> int:
        """Return how many cells were planned for the row that a cell belongs to, under one shift or all."""
        planned = self.rows.get(row_of(cell), {})
        return sum(not shift or shift in one.shifts for one in planned.values())

    def sentences(self) -> list[str]:
        """Return what is missing, in sentences; none where everything that was planned is there."""
        missing = [cell for key, cell in self.planned.items() if key not in self.ended]
        if not missing:
            return []
        counts = Counter(f"{one.method} on {one.dataset}" for one in missing).most_common()
        listed = ", ".join(f"{name} ({count})" for name, count in counts[:SHOWN])
        more = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
        state = "a run is under way" if self.under_way else "interrupted"
        hint = "" if self.under_way else "; the same command computes them"
        there = f"{len(self.planned) - len(missing)} of {len(self.planned)} cells, {state}"
        return [f"{there}: {listed}{more} {'is' if len(missing) == 1 else 'are'} missing{hint}."]


def coverage(
    folders: Sequence[str],
    loaded: Sequence[StoredCell],
    meant: Callable[[Cell], bool] = lambda _: True,
    *,
    with_plans: bool = True,
) -> Coverage:
    """Return what run folders should hold and what they do.

    A cell that began counts as planned, also where no plan names it.

    Args:
        folders: URLs of run folders.
        loaded: Their cells.
        meant: Which planned cells count.
        with_plans: Whether their plans count; without, what began does.
    """
    stores = (Store(url) for url in dict.fromkeys(folders)) if with_plans else ()
    plans = sorted((plan for store in stores for plan in store.plans()), key=lambda plan: plan.time)
    begun = [one.cell for one in loaded]
    rows: dict[str, dict[str, Cell]] = {}
    latest: dict[str, Cell] = {}
    for cell in [*begun, *(cell for plan in plans for cell in plan.cells if meant(cell))]:
        rows.setdefault(row_of(cell), {})[identity(cell)] = cell
        latest[identity(cell, code=False)] = cell
    ended = {identity(one.cell, code=False) for one in loaded if one.manifest.status != "running"}
    running = (one for one in loaded if one.manifest.status == "running")
    return Coverage(rows, latest, ended, any(one.store.is_written(one.manifest.id) for one in running))


def identity(cell: Cell, *, code: bool = True) -> str:
    """Return what tells planned cells apart, with or without the version of their code."""
    return _canonical(cell, frozenset() if code else frozenset(_CODE))


def row_of(cell: Cell) -> str:
    """Return what the planned cells of one row share."""
    return _canonical(cell, frozenset(_VARYING))


def _canonical(cell: Cell, without: frozenset[str]) -> str:
    return canonical({name: value for name, value in cell.identity().items() if name not in without})
