# SPDX-License-Identifier: Apache-2.0
"""Where a cell begins: at its start, at the next batch, or behind the last state that it kept."""

from __future__ import annotations

from typing import NamedTuple

from tta_bench.engine.cell import AFRESH
from tta_bench.engine.identity import Resolved
from tta_bench.engine.ports import RecordStore
from tta_bench.engine.states import load_state
from tta_bench.method import State


class Start(NamedTuple):
    """Where a cell begins.

    Attributes:
        rows: The range of the stream that is computed.
        done: Rows of the range that are safe.
        state: The state that they led to, where it is carried.
    """

    rows: range
    done: int = 0
    state: State | None = None

    @property
    def position(self) -> int:
        """Return the position of the first row that is computed."""
        return self.rows.start + self.done


def start_of(one: Resolved, store: RecordStore, cell: str, rows: range) -> Start:
    """Return where an interrupted cell resumes.

    Args:
        one: The cell.
        store: Where its rows are.
        cell: Its id.
        rows: The range of its stream that is computed.
    """
    if one.cell.reset in AFRESH:
        border = one.stream.border(rows.start + store.rows_done(cell, rows.start))
        return Start(rows, border - rows.start)
    saved = store.state(cell)
    if saved is None:
        return Start(rows)
    try:
        state, _ = load_state(saved.content, one.source.device)
    except ValueError:  # damaged: the cell starts again
        return Start(rows)
    return Start(rows, saved.rows, state)
