# SPDX-License-Identifier: Apache-2.0
"""Read cells from any number of run folders into compact arrays, column by column and file by file."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tta_bench.errors import BadInputError, Caution, StoreError
from tta_bench.records.health import sound_manifests
from tta_bench.records.schema import CLOCK_COLUMNS
from tta_bench.records.store import Store
from tta_bench.spec import Cell, Manifest, Protocol

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_READ = (
    "image_id",
    "shift",
    "label",
    "prediction",
    "confidence",
    "source_prediction",
    "teacher_prediction",
    "zero_shot_prediction",
    *CLOCK_COLUMNS,
    "peak_mib",
    "warmup",
    "cached",
)


class StoredCell(NamedTuple):
    """A manifest and where its records are."""

    store: Store
    manifest: Manifest

    @property
    def cell(self) -> Cell:
        """Return the cell that was run."""
        return self.manifest.cell

    @property
    def protocol(self) -> Protocol:
        """Return its protocol card."""
        return self.manifest.protocol

    @property
    def model(self) -> str:
        """Return the name of its source model; weights from a file go by their hash, wherever the file lies."""
        cell = self.cell
        return f"{cell.model_name}:{self.protocol.weights[:8]}" if cell.weights_file else cell.model

    @property
    def place(self) -> str:
        """Return where the cell lies, as a user would name it."""
        return f"{self.store.url}/cells/{self.manifest.id}"


class Records(NamedTuple):
    """Rows of one or more cells.

    Attributes:
        shifts: Names of the shifts that the codes stand for.
        shift: (R,) code of each row's shift.
        image: (R,) code of each row's image.
        correct: (R,) whether the prediction is the label.
        source_correct: (R,) the same of the source model.
        teacher_correct: (R,) the same of the teacher, or None unless it has predictions for all rows.
        teacher_differs: Whether the teacher's predictions somewhere differ from the source's.
        prompts_correct: (R,) whether zero-shot classification with the class prompts of the method is right; None
            without a text side.
        confidence: (R,) of the predicted class.
        total_ms: (R,) milliseconds per image over all parts of the step; NaN in warm-up and without clocks.
        peak_mib: (R,) NaN where it was not probed.
        cached: Whether features of an image were read from the cache.
    """

    shifts: tuple[str, ...]
    shift: Integers
    image: Integers
    correct: Flags
    source_correct: Flags
    teacher_correct: Flags | None
    teacher_differs: bool
    prompts_correct: Flags | None
    confidence: Floats
    total_ms: Floats
    peak_mib: Floats
    cached: bool

    def of_shift(self, name: str) -> Records:
        """Return the rows of one shift, with codes that start at 0."""
        keep = self.shift == self.shifts.index(name)
        teacher = self.teacher_correct
        return Records(
            shifts=(name,),
            shift=np.zeros(int(keep.sum()), dtype=np.int64),
            image=np.unique(self.image[keep], return_inverse=True)[1],
            correct=self.correct[keep],
            source_correct=self.source_correct[keep],
            teacher_correct=None if teacher is None else teacher[keep],
            teacher_differs=self.teacher_differs,
            prompts_correct=None if self.prompts_correct is None else self.prompts_correct[keep],
            confidence=self.confidence[keep],
            total_ms=self.total_ms[keep],
            peak_mib=self.peak_mib[keep],
            cached=self.cached,
        )


def load_cells(folders: Sequence[str], cells: Collection[str] | None = None) -> list[StoredCell]:
    """Return the cells in run folders, sorted by id; an id in several folders counts once.

    Args:
        folders: URLs of run folders.
        cells: Cell ids to keep; all if None.

    Raises:
        StoreError: If a folder cannot be read, or two folders disagree about the predictions of a cell.
        BadInputError: If a wanted cell is in no folder.
    """
    found: dict[str, list[StoredCell]] = {}
    known: set[str] = set()
    for url in dict.fromkeys(folders):
        store = Store(url).open(create=False)
        known.update(store.cells())
        for manifest in sound_manifests(store):
            if cells is None or manifest.id in cells:
                found.setdefault(manifest.id, []).append(StoredCell(store, manifest))
    missing = sorted(set(cells or ()) - known)
    if missing:
        raise BadInputError(f"cell {missing[0]} should be in {', '.join(folders)} and is not; check its id")
    kept = [_one_of(copies) for _, copies in sorted(found.items())]
    _tell_of_copies(kept, found)
    return kept


def _tell_of_copies(kept: Sequence[StoredCell], found: Mapping[str, Sequence[StoredCell]]) -> None:
    """Say which of several copies of a cell are used."""
    dropped: dict[tuple[str, str], list[str]] = {}
    for one in kept:
        for other in found[one.manifest.id]:
            if other.store is not one.store:
                names = dropped.setdefault((one.store.url, other.store.url), [])
                names.append(f"{one.cell.label} ({one.manifest.id})")
    for (used, left_out), names in sorted(dropped.items()):
        what = "1 cell" if len(names) == 1 else f"{len(names)} cells"
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        warnings.warn(
            f"{what} in both {used} and {left_out}: {names[0]}{more}; each counts once, and those of {used} are used, "
            "which are complete and began first",
            Caution,
            stacklevel=3,
        )


def _one_of(copies: list[StoredCell]) -> StoredCell:
    # The choice must not depend on the order of the folders: copies differ in their clocks.
    complete = [cell for cell in copies if cell.manifest.status == "complete"]
    ranked = sorted(complete or copies, key=lambda cell: (cell.manifest.started, cell.manifest.to_json()))
    for other in ranked[1:] if complete else ():
        _require_same_predictions(ranked[0], other)
    return ranked[0]


def _require_same_predictions(first: StoredCell, second: StoredCell) -> None:
    columns = ["image_id", "prediction"]
    left, right = (cell.store.read(cell.manifest.id, columns) for cell in (first, second))
    if not left.equals(right):
        raise StoreError(
            f"cell {first.manifest.id} ({first.cell.label}) should have the same predictions everywhere and differs "
            f"between {' and '.join(sorted((first.store.url, second.store.url)))}; find out why and leave one out"
        )


def load_records(cells: Sequence[StoredCell]) -> Records:
    """Read the records of cells that are reported together.

    Raises:
        StoreError: If records are missing or damaged.
    """
    tables = [cell.store.read(cell.manifest.id, _READ) for cell in cells]
    table = pa.concat_tables(tables).unify_dictionaries()
    shifts, shift = _codes(table, "shift")
    _, image = _codes(table, "image_id")
    label = table.column("label").to_numpy()
    prediction, source = table.column("prediction").to_numpy(), table.column("source_prediction").to_numpy()
    teacher = _teacher(table)
    return Records(
        shifts=tuple(shifts),
        shift=shift,
        image=image,
        correct=prediction == label,
        source_correct=source == label,
        teacher_correct=None if teacher is None else teacher == label,
        teacher_differs=teacher is not None and bool((teacher != source).any()),
        prompts_correct=_zero_shot(table, source) == label if cells[0].protocol.prompts else None,
        confidence=_floats(table, "confidence"),
        total_ms=_total_ms(table),
        peak_mib=_floats(table, "peak_mib"),
        cached=bool(pc.any(table.column("cached")).as_py()),
    )


def _zero_shot(table: pa.Table, source: Integers) -> Integers:
    """Return the predictions with the prompts of the method: the source model's where it has no others."""
    found = _floats(table, "zero_shot_prediction")
    return np.where(np.isnan(found), source, found).astype(np.int64)


def _codes(table: pa.Table, name: str) -> tuple[list[str], Integers]:
    column = table.column(name).combine_chunks()
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    indices = column.indices.to_numpy(zero_copy_only=False)
    used = np.bincount(indices, minlength=len(column.dictionary)) > 0
    names = [name for name, there in zip(column.dictionary.to_pylist(), used, strict=True) if there]
    return names, (np.cumsum(used) - 1)[indices]


def _floats(table: pa.Table, name: str) -> Floats:
    values: NDArray[Any] = table.column(name).to_numpy()  # nulls become NaN
    return values.astype(np.float64)


def _total_ms(table: pa.Table) -> Floats:
    parts = np.stack([_floats(table, name) for name in CLOCK_COLUMNS])
    measured = ~np.isnan(parts).all(axis=0) & ~table.column("warmup").to_numpy()
    total: Floats = np.where(measured, np.nansum(parts, axis=0), np.nan)
    return total


def _teacher(table: pa.Table) -> Integers | None:
    column = table.column("teacher_prediction")
    if column.null_count:
        return None
    teacher: Integers = column.to_numpy()
    return teacher
