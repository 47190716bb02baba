# SPDX-License-Identifier: Apache-2.0
"""Append the records of one cell in parts that survive a kill, and join them at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from tta_bench.errors import StoreError
from tta_bench.records.files import Files
from tta_bench.records.owner import Owner
from tta_bench.records.parts import RECORDS, drop_after, intact_parts, join, part_name
from tta_bench.records.schema import RECORD_SCHEMA, REQUIRED_COLUMNS
from tta_bench.records.states import StateFiles
from tta_bench.spec import Manifest

Column: TypeAlias = Sequence[Any] | np.ndarray[Any, Any] | str | int | float | bool | None


class CellWriter:
    """Collect the records of one cell batch by batch; `Store.writer` makes it.

    A part is written after ``flush_rows`` rows or ``flush_seconds`` seconds, at the end of a batch, so a
    killed process loses at most that much.

    Args:
        files: Files of the store.
        cell: Cell id.
        resume: Continue behind the rows that are intact instead of starting again.
        write_manifest: Called once by `finish`, after the records are in place.
        flush_rows: Rows that make a part.
        flush_seconds: Seconds after which a part is written even with fewer rows.
        clock: Monotonic seconds.
        first: Position of the cell's first row, which is not 0 in a shard.
        rows: With ``resume``, how many rows are kept at most: whole parts; None: all that are intact.
    """

    def __init__(
        self,
        files: Files,
        cell: str,
        *,
        resume: bool,
        write_manifest: Callable[[Manifest], None],
        flush_rows: int,
        flush_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        first: int = 0,
        rows: int | None = None,
    ) -> None:
        self._files, self._cell, self._write_manifest = files, cell, write_manifest
        self._flush_rows, self._flush_seconds, self._clock = flush_rows, flush_seconds, clock
        self._owner = Owner(files, cell)
        self._first, self._states = first, StateFiles(files, cell, clock)
        most = first + rows if rows is not None else None
        parts = intact_parts(files, cell, first) if resume else []
        parts = [part for part in parts if most is None or part.last_position < most]
        self._states.remove(but=sum(part.rows for part in parts))
        drop_after(files, cell, parts)
        self._part = len(parts)
        self._position = max((part.last_position for part in parts), default=first - 1)
        self.rows = sum(part.rows for part in parts)
        self._pending: list[pa.RecordBatch] = []
        self._flushed_at = clock()

    def append(self, columns: Mapping[str, Column]) -> None:
        """Add the records of one batch.

        Args:
            columns: Column name to N values; a scalar stands for N equal values. ``top5`` may be an array of
                shape (N, <=5). ``cell`` may be left out, and so may columns that allow nulls.

        Raises:
            StoreError: If a column is missing, unknown, of another length or of another type, or if
                ``position`` does not grow.
        """
        self._add(build_batch({"cell": self._cell, **columns}))

    def append_table(self, table: pa.Table) -> None:
        """Add records that were read from a store, in the order of their positions.

        Raises:
            StoreError: As `append`.
        """
        for batch in table.to_batches():
            self._add(batch)

    def _add(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        positions = batch.column("position").to_numpy()
        if positions[0] <= self._position or (np.diff(positions) <= 0).any():
            raise StoreError(
                f"the positions of cell {self._cell} should grow from {self._position + 1} on, "
                f"got {positions[:5].tolist()}; append each image of the stream once and in order"
            )
        self._position = int(positions[-1])
        self._pending.append(batch)
        self.rows += batch.num_rows
        waiting = sum(batch.num_rows for batch in self._pending)
        if waiting >= self._flush_rows or self._clock() - self._flushed_at >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting as one part.

        Raises:
            StoreError: If another process took the cell over.
        """
        self._owner.check()
        if self._pending:
            table = pa.Table.from_batches(self._pending).unify_dictionaries()
            self._files.write_table(part_name(self._cell, self._part), table)
            self._part += 1
            self._pending = []
        self._flushed_at = self._clock()

    def keep_state(self, dump: Callable[[], bytes | None]) -> None:
        """Keep the state that the rows so far led to, if they are all written; else `close` does.

        Args:
            dump: Gives its bytes, None if it cannot be kept.
        """
        self._states.offer(self.rows, dump)
        if not self._pending:
            self._states.keep()

    def finish(self, manifest: Manifest) -> Manifest:
        """Join the parts into one file, write the final manifest, remove the parts.

        Args:
            manifest: Its status ``running`` becomes ``complete``, its ``images`` the number of rows.

        Returns:
            The manifest as written.

        Raises:
            StoreError: If the manifest is of another cell, or the records are not one for each position from 0.
        """
        if manifest.id != self._cell:
            raise StoreError(
                f"the manifest should be of cell {self._cell}, got one of {manifest.id}; "
                "finish each cell with its own"
            )
        self.flush()
        status = "complete" if manifest.status == "running" else manifest.status
        final = replace(manifest, status=status, images=self.rows)
        rows = join(self._files, self._cell, self._part, self._first)
        if rows != self.rows:
            raise StoreError(
                f"the records of cell {self._cell} in {self._files.url} should be {self.rows}, got {rows}; run the "
                "same command again, and one process at a time"
            )
        final = replace(final, records_sha256=self._files.sha256(f"cells/{self._cell}/{RECORDS}") or "")
        self._write_manifest(final)
        for index in reversed(range(self._part)):
            self._files.remove(part_name(self._cell, index))
        self._states.remove()
        self._owner.release()
        return final

    def close(self) -> None:
        """Write what is waiting, and the state that it led to, and let go of the cell, which can be resumed."""
        self.flush()
        self._states.keep(now=True)
        self._owner.release()

    def __enter__(self) -> CellWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def build_batch(columns: Mapping[str, Column]) -> pa.RecordBatch:
    """Return one batch of records in the order and types of the schema.

    Args:
        columns: Column name to N values or to one scalar for all.

    Raises:
        StoreError: If a column is missing, unknown, of another length or of another type.
    """
    unknown, missing = set(columns) - set(RECORD_SCHEMA.names), REQUIRED_COLUMNS - set(columns)
    if unknown or missing:
        raise StoreError(
            f"records should have the columns of the schema; missing {sorted(missing)}, "
            f"unknown {sorted(unknown)}; see tta_bench.records.schema"
        )
    rows = _count(columns["image_id"])
    arrays = [_array(field, columns.get(field.name), rows) for field in RECORD_SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=RECORD_SCHEMA)


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    # A checked cast: building with the type at once would cut 0.5 to 0, and a plain cast reads numbers in text.
    if pa.types.is_string(array.type) != pa.types.is_string(kind) and not pa.types.is_null(array.type):
        raise pa.ArrowTypeError(f"got {array.type}")
    return array.cast(kind)


def _count(values: Column) -> int:
    return len(values) if isinstance(values, Sized) and not isinstance(values, str) else 1


def _array(field: pa.Field, values: Column, rows: int) -> pa.Array:
    if values is None or np.isscalar(values):
        values = [values] * rows
    if _count(values) != rows:
        raise StoreError(
            f"column {field.name} should have {rows} values, one per image, got {_count(values)}"
        )
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    try:
        if isinstance(values, np.ndarray) and values.ndim == 2:
            offsets = np.arange(0, values.size + 1, max(values.shape[1], 1), dtype=np.int32)
            array = pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), kind.value_type))
        else:
            array = _cast(pa.array(values), kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise StoreError(f"column {field.name} should hold {kind}: {error}") from error
    if array.null_count and not field.nullable:
        raise StoreError(
            f"column {field.name} should have a value for every image, got {array.null_count} nulls"
        )
    return array.dictionary_encode() if pa.types.is_dictionary(field.type) else array
