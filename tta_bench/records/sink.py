# SPDX-License-Identifier: Apache-2.0
"""The store as the engine sees it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tta_bench.engine.ports import RowWriter, SavedState, SourceScores
from tta_bench.errors import BadInputError
from tta_bench.records.health import usable
from tta_bench.records.store import FLUSH_SECONDS, Store
from tta_bench.records.writer import CellWriter
from tta_bench.spec import Cell, Manifest

VARIABLE = "TTA_BENCH_FLUSH_SECONDS"


class Sink:
    """Keep the cells of a run in a store; satisfies `tta_bench.engine.ports.RecordStore`.

    The environment variable ``TTA_BENCH_FLUSH_SECONDS`` says how often rows are made safe; default: 5.

    Args:
        store: The store.
        config: The options of the run as YAML, to be kept beside its plan.
    """

    def __init__(self, store: Store, config: str = "") -> None:
        self._store, self._config = store, config
        self._flush_seconds = _flush_seconds(os.environ.get(VARIABLE, str(FLUSH_SECONDS)))

    def plan(self, cells: Sequence[Cell]) -> None:
        """Note which cells the run is about to compute."""
        self._store.put_plan(cells, self._config)

    def rows_done(self, cell: str, first: int = 0) -> int:
        """Return how many rows from the cell's start are safe."""
        return self._store.rows_done(cell, first)

    def begin(self, manifest: Manifest, *, rows: int, first: int = 0) -> CellWriter:
        """Note that a cell is running and return where its rows go, behind the ``rows`` that are kept."""
        self._store.refuse_other(manifest.id)
        # The manifest first: a cell must say that it is running before its old records go.
        self._store.write_manifest(manifest)
        return self._store.writer(
            manifest.id, resume=rows > 0, flush_seconds=self._flush_seconds, first=first, rows=rows
        )

    def state(self, cell: str) -> SavedState | None:
        """Return the last state of a cell under way whose rows are safe."""
        return self._store.state(cell)

    def shard(self, cell: str, index: int, count: int) -> Sink:
        """Return where one of ``count`` ranges of a cell is kept until all are there."""
        return Sink(self._store.shard(cell, index, count))

    def manifest(self, cell: str) -> Manifest | None:
        """Return the last manifest of a cell, None if it was never begun or is damaged and thus set aside."""
        return usable(self._store, cell)

    def note(self, manifest: Manifest) -> None:
        """Keep what is known of a cell under way, at once."""
        self._store.write_manifest(manifest)

    def finish(self, writer: RowWriter, manifest: Manifest) -> None:
        """Close a cell with its final manifest."""
        assert isinstance(writer, CellWriter)
        writer.finish(manifest)

    def retime(self, manifest: Manifest, rows: Sequence[Mapping[str, Any]]) -> int:
        """Put new times in the place of a finished cell's; see `tta_bench.records.store.Store.retime`."""
        self._store.refuse_other(manifest.id)
        return self._store.retime(manifest, rows)

    def scores(self, key: str) -> SourceScores | None:
        """Return kept source scores; None if the caller is to compute them, as no other process does."""
        table = self._store.scores_or_claim(key)
        if table is None:
            return None
        return SourceScores(*(table.column(name).to_numpy() for name in SourceScores._fields))

    def put_scores(self, key: str, scores: SourceScores) -> None:
        """Keep source scores."""
        columns = {
            "prediction": scores.prediction.astype(np.int64),
            "confidence": scores.confidence.astype(np.float32),
        }
        self._store.put_scores(key, pa.table(columns))


def _flush_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:  # as also nan is not
        raise BadInputError(f"{VARIABLE} must be a number of seconds, 0 or more, got {text!r}")
    return seconds
