# SPDX-License-Identifier: Apache-2.0
"""The parts of a cell that is being written: which are intact, and how they become one file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tta_bench.errors import StoreError
from tta_bench.records.files import Files
from tta_bench.records.schema import RECORD_SCHEMA

RECORDS = "records.parquet"
GROUP_ROWS = 65_536
"""Rows that are joined at a time, so that memory does not grow with the cell."""
_PART = re.compile(r"part-(\d{5,})\.parquet")


class Part(NamedTuple):
    """One intact part.

    Attributes:
        name: Name below the store.
        rows: Rows in it.
        first_position: Stream position of its first row.
        last_position: Stream position of its last row.
    """

    name: str
    rows: int
    first_position: int
    last_position: int


def part_name(cell: str, index: int) -> str:
    """Return the name of a part below the store."""
    return f"cells/{cell}/part-{index:05d}.parquet"


def part_names(files: Files, cell: str) -> list[str]:
    """Return the names of all parts of a cell, intact or not, in order."""
    found = [
        (int(match[1]), name) for name in files.names(f"cells/{cell}") if (match := _PART.fullmatch(name))
    ]
    return [f"cells/{cell}/{name}" for _, name in sorted(found)]


def inspect(files: Files, cell: str, name: str) -> Part | None:
    """Read a whole part with its checksums; None if it is absent, torn, of another cell or has gaps."""
    try:
        table = files.read_table(name, verify=True)
    except (OSError, ValueError):  # a torn part is expected after a crash: it is computed again
        return None
    if not table.schema.equals(RECORD_SCHEMA) or not table.num_rows:
        return None
    positions = table.column("position").to_numpy()
    if (np.diff(positions) != 1).any() or table.column("cell").unique().to_pylist() != [cell]:
        return None
    return Part(name, table.num_rows, int(positions[0]), int(positions[-1]))


def intact_parts(files: Files, cell: str, first: int = 0) -> list[Part]:
    """Return the contiguous intact parts from position ``first`` on; the joined file counts as one part."""
    joined = inspect(files, cell, f"cells/{cell}/{RECORDS}")
    if joined and joined.first_position == first:
        return [joined]
    parts: list[Part] = []
    while part := inspect(files, cell, part_name(cell, len(parts))):
        if part.first_position != first + sum(one.rows for one in parts):
            break
        parts.append(part)
    return parts


def drop_after(files: Files, cell: str, keep: Sequence[Part]) -> None:
    """Remove all records of a cell but the parts to keep, which end up as the first parts."""
    for name in files.unfinished(f"cells/{cell}"):
        files.remove(f"cells/{cell}/{name}")
    kept = {part.name for part in keep}
    for name in reversed(part_names(files, cell)):
        if name not in kept:
            files.remove(name)
    joined = f"cells/{cell}/{RECORDS}"
    if joined in kept:
        files.rename(joined, part_name(cell, 0))
    else:
        files.remove(joined)


def join(files: Files, cell: str, count: int, first: int = 0) -> int:
    """Write the first ``count`` parts of a cell as one file, part by part, and return how many rows it has.

    Raises:
        StoreError: If one of them is gone or damaged, or they are not one row for each position from ``first``.
    """
    rows, waiting = 0, list[pa.Table]()
    with files.table_writer(f"cells/{cell}/{RECORDS}", RECORD_SCHEMA) as write:
        for index in range(count):
            try:
                table = files.read_table(part_name(cell, index), verify=True)
            except (OSError, ValueError) as error:
                raise StoreError(
                    f"the {count} parts of cell {cell} in {files.url} should be readable and are not ({error}); run "
                    "the same command again, and one process at a time"
                ) from error
            positions = table.column("position").to_numpy()
            if not np.array_equal(positions, np.arange(len(positions)) + first + rows):
                raise StoreError(
                    f"the records of cell {cell} in {files.url} should be one for each position, and those of part "
                    f"{index} are not; run the same command again, and one process at a time"
                )
            rows += table.num_rows
            waiting.append(table)
            if sum(table.num_rows for table in waiting) >= GROUP_ROWS or index == count - 1:
                write(pa.concat_tables(waiting).unify_dictionaries())
                waiting = []
    return rows
