# SPDX-License-Identifier: Apache-2.0
"""Recorded costs of the finished cells of a store."""

from __future__ import annotations

from tta_bench.engine.estimate import Past
from tta_bench.errors import DamagedError, StoreError
from tta_bench.records.store import Store


def read_past(url: str) -> list[Past]:
    """Return what each complete cell of a run folder took; none where there is no such folder yet.

    Records are not read: an estimate needs no proof that they are sound.
    """
    try:
        store = Store(url).open(create=False)
        cells = store.cells()
    except StoreError:
        return []
    found = []
    for cell in cells:
        try:
            manifest = store.manifest(cell)
        except DamagedError:
            continue
        if manifest is None or manifest.status != "complete" or not manifest.outcome.computed:
            continue
        seconds = manifest.outcome.seconds
        if seconds:
            row = store.records_bytes(cell) / max(manifest.images, 1)
            images = manifest.outcome.computed
            found.append(Past(manifest.cell, manifest.machine.device_name, seconds / images, row, images))
    return found
