# SPDX-License-Identifier: Apache-2.0
"""Records as a pandas table, for notebooks."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from tta_bench.records.health import sound_manifests
from tta_bench.records.store import Store

FACTS = ("method", "model", "dataset")


def read_frame(
    folder: str, columns: Sequence[str] | None = None, cells: Collection[str] | None = None
) -> pd.DataFrame:
    """Return the records of all complete cells of a run folder, one row per image.

    Args:
        folder: Path or URL of a run folder.
        columns: Record columns to read, see `tta_bench.records.schema.RECORD_SCHEMA`; all if None.
        cells: Ids of the cells to read; all if None.

    Returns:
        The columns, preceded by ``method``, ``variant``, ``model`` and ``dataset`` of the cell, and by
        ``correct`` where label and prediction are among them.

    Raises:
        StoreError: If the folder is not a run folder or cannot be read.
    """
    store = Store(folder).open(create=False)
    frames = []
    for manifest in sound_manifests(store):
        if manifest.status != "complete" or (cells is not None and manifest.id not in cells):
            continue
        frame = store.read(manifest.id, columns).to_pandas()
        if {"label", "prediction"} <= set(frame.columns):
            frame.insert(0, "correct", frame["label"] == frame["prediction"])
        for name in reversed(FACTS):
            frame.insert(0, name, getattr(manifest.cell, name))
        frame.insert(1, "variant", manifest.cell.variant)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(columns or ()))
