# SPDX-License-Identifier: Apache-2.0
"""The engine's interfaces to the outside: a sink for rows and a reporter of progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from tta_bench.spec import Cell, Manifest


class SourceScores(NamedTuple):
    """The source model's own scores on a stream: predictions (n,) int64 and confidences (n,) float32."""

    prediction: np.ndarray
    confidence: np.ndarray


class RowWriter(Protocol):
    """Where the rows of one cell go."""

    def append(self, columns: Mapping[str, Any]) -> None:
        """Keep the rows of one batch, column by column."""

    def keep_state(self, dump: Callable[[], bytes | None]) -> None:
        """Keep the state after the last batch, where its rows are safe; ``dump`` is called only then."""

    def close(self) -> None:
        """Keep what was appended so far; the cell can be resumed."""


Retime = Callable[[Manifest, Sequence[Mapping[str, Any]]], int]
"""Puts new times and memory in the place of a finished cell's, given its manifest and the columns of each batch.

It returns how many predictions differ from those that are kept, and writes nothing unless that is 0.
"""


class SavedState(NamedTuple):
    """A state of a cell under way: how many rows from the cell's start led to it, and its bytes."""

    rows: int
    content: bytes


class RecordStore(Protocol):
    """Where cells are kept, by their content-addressed ids."""

    def plan(self, cells: Sequence[Cell]) -> None:
        """Note which cells a run is about to compute."""

    def rows_done(self, cell: str, first: int = 0) -> int:
        """Return how many rows from the cell's start, at position ``first``, are safe."""

    def begin(self, manifest: Manifest, *, rows: int, first: int = 0) -> RowWriter:
        """Note that a cell is running and return where its rows go, behind the ``rows`` that are kept.

        Args:
            manifest: Of the cell.
            rows: How many rows from the start are kept; 0: none.
            first: Position of the first row, which is not 0 in a shard.
        """

    def state(self, cell: str) -> SavedState | None:
        """Return the last state of a cell under way whose rows are safe."""

    def shard(self, cell: str, index: int, count: int) -> RecordStore:
        """Return where one of ``count`` ranges of a cell's images is kept until all are there."""

    def manifest(self, cell: str) -> Manifest | None:
        """Return the last manifest of a cell, None if it was never begun."""

    def note(self, manifest: Manifest) -> None:
        """Keep what is known of a cell under way, at once."""

    def finish(self, writer: RowWriter, manifest: Manifest) -> None:
        """Close a cell with its final manifest."""

    def scores(self, key: str) -> SourceScores | None:
        """Return kept source scores."""

    def put_scores(self, key: str, scores: SourceScores) -> None:
        """Keep source scores."""


class Reporter(Protocol):
    """Whoever shows the progress of a run."""

    def cell_started(self, label: str, done: int, total: int) -> None:
        """Tell that a cell of ``total`` images begins, ``done`` of them being safe already."""

    def preparing(self, method: str, done: int, total: int | None) -> None:
        """Tell how many source images a method has read before the stream, of how many if it says so."""

    def advanced(self, images: int) -> None:
        """Tell that so many more images were predicted."""

    def cell_ended(self, label: str, status: str, detail: str = "") -> None:
        """Tell how a cell ended: ``complete``, ``reused``, ``remeasured``, ``differs``, ``collapsed`` or ``failed``."""
