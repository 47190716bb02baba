# SPDX-License-Identifier: Apache-2.0
"""Inventory: the run folders below a folder, and the cells of run folders with their names and ids."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tta_bench.errors import BadInputError, StoreError
from tta_bench.records.store import MARKER, Store
from tta_bench.reports.coverage import coverage, identity
from tta_bench.reports.load import StoredCell, load_cells
from tta_bench.reports.select import Conditions
from tta_bench.spec import Cell

DEPTH = 3
"""Levels of folders that are looked through for run folders."""


class RunLine(NamedTuple):
    """One run folder: what it is called, how much of it is there, what it is about, and when it was last written."""

    run: str
    cells: str
    methods: str
    models: str
    datasets: str
    last: str


class CellLine(NamedTuple):
    """One cell, there or planned; ``run`` is its folder."""

    id: str
    method: str
    model: str
    shift: str
    seed: str
    status: str
    images: str
    run: str


def run_lines(places: Sequence[str]) -> Iterator[RunLine]:
    """Yield a line for each run folder among some folders or below them.

    Raises:
        BadInputError: If there is none.
    """
    found = list(dict.fromkeys(folder for place in places for folder in _run_folders(place)))
    if not found:
        raise BadInputError(
            f"there is no run folder in {', '.join(places)}; name another folder, or make one with tta-bench run"
        )
    for folder in found:
        try:
            yield _run_line(folder)
        except StoreError as error:
            yield RunLine(folder, "", f"cannot be read: {error}", "", "", "")


def _run_folders(place: str) -> Iterator[str]:
    root = Path(place)
    if "://" in place or (root / MARKER).is_file():
        yield place
        return
    for parent, folders, names in os.walk(root):
        if MARKER in names:
            yield os.path.normpath(parent)
            folders.clear()
        elif len(Path(parent).relative_to(root).parts) >= DEPTH:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _run_line(folder: str) -> RunLine:
    manifests = [StoredCell(Store(folder), one) for one in Store(folder).open(create=False).manifests()]
    planned = coverage([folder], manifests)
    cells = [one.cell for one in manifests] + list(planned.planned.values())
    there = sum(key in planned.ended for key in planned.planned)
    return RunLine(
        folder,
        f"{there} of {len(planned.planned)}",
        _listed(cell.method for cell in cells),
        _listed(cell.model for cell in cells),
        _listed(cell.dataset for cell in cells),
        max((one.manifest.finished or one.manifest.started for one in manifests), default=""),
    )


def _listed(names: Iterable[str], most: int = 4) -> str:
    known = list(dict.fromkeys(names))
    return ", ".join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "")


def cell_lines(folders: Sequence[str], asked: Conditions) -> list[CellLine]:
    """Return a line for each cell of run folders, and for each that is planned and not begun.

    Raises:
        StoreError: If one is no run folder.
    """
    loaded = load_cells(folders)
    planned = coverage(folders, loaded)
    begun = {identity(one.cell, code=False) for one in loaded}
    lines = [_cell_line(one) for one in loaded if asked.of_stored(one)]
    lines += [
        CellLine("", _named(cell), cell.model, _shift(cell.shifts), str(cell.seed), "planned", "", "")
        for key, cell in planned.planned.items()
        if key not in begun and asked.of_planned(cell)
    ]
    return sorted(lines, key=lambda line: (line.method, line.model, line.shift, int(line.seed), line.id))


def _named(cell: Cell) -> str:
    return f"{cell.method}[{cell.variant}]" if cell.variant else cell.method


def _cell_line(one: StoredCell) -> CellLine:
    cell, manifest = one.cell, one.manifest
    return CellLine(
        manifest.id, _named(cell), cell.model, _shift(cell.shifts), str(cell.seed), manifest.status,
        str(manifest.images), one.store.url,
    )  # fmt: skip


def _shift(shifts: Sequence[str]) -> str:
    return shifts[0] if len(shifts) == 1 else f"{shifts[0]} and {len(shifts) - 1} more"
