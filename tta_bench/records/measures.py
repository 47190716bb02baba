# SPDX-License-Identifier: Apache-2.0
"""Times and memory of a finished cell that is measured again: its predictions must come out the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tta_bench.records.schema import CLOCK_COLUMNS
from tta_bench.records.writer import build_batch

PREDICTED = ("image_id", "shift", "prediction")


def measured_table(cell: str, batches: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return the records of a cell from the columns of its batches.

    Args:
        cell: Its id.
        batches: As a writer takes them.
    """
    return pa.Table.from_batches([build_batch({"cell": cell, **one}) for one in batches]).unify_dictionaries()


def different_predictions(old: pa.Table, new: pa.Table) -> int:
    """Return how many rows of two tables differ in image, shift or prediction; those that one has more all do."""
    rows = min(old.num_rows, new.num_rows)
    differs = pa.array([False] * rows)
    for name in PREDICTED:
        left, right = (pc.cast(one.column(name), _plain(one, name)).slice(0, rows) for one in (old, new))
        differs = pc.or_(differs, pc.not_equal(left.combine_chunks(), right.combine_chunks()))
    differing: int = sum(one is not False for one in differs.to_pylist())
    return differing + int(abs(old.num_rows - new.num_rows))


def _plain(table: pa.Table, name: str) -> pa.DataType:
    kind = table.schema.field(name).type
    plain: pa.DataType = kind.value_type if pa.types.is_dictionary(kind) else kind
    return plain


def with_measures(old: pa.Table, new: pa.Table) -> pa.Table:
    """Return records with the times of others in their place, and their memory where it was probed."""
    probed = new.column("peak_mib").null_count < new.num_rows
    for name in (*CLOCK_COLUMNS, *(("peak_mib",) if probed else ())):
        place = old.schema.get_field_index(name)
        old = old.set_column(place, old.schema.field(name), new.column(name))
    return old
