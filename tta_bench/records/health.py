# SPDX-License-Identifier: Apache-2.0
"""Whether what is stored of a cell is still what was written."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

import numpy as np

from tta_bench.errors import Caution, DamagedError
from tta_bench.records.store import Store
from tta_bench.spec import Manifest

_DERIVED = re.compile(r"[0-9a-f]{20}")
"""The form of an id that was derived from a cell and its protocol; others are names that were given."""


def sound_manifest(store: Store, cell: str) -> Manifest | None:
    """Return the manifest of a cell whose files are as they were written, None where there is no such cell.

    Raises:
        DamagedError: With what is wrong.
        StoreError: If it cannot be read, or is of another schema.
    """
    manifest = store.manifest(cell)
    if manifest is None:
        if store.has_records(cell):
            raise DamagedError("its manifest.json is missing")
        return None
    if manifest.id != cell:
        raise DamagedError(f"its manifest is that of cell {manifest.id}")
    if _DERIVED.fullmatch(cell) and manifest.cell.id(manifest.protocol) != cell:
        raise DamagedError("its manifest was changed: the id does not follow from it")
    if manifest.status in (
        "complete",
        "collapsed",
    ):  # a failed cell has no numbers, and is computed again anyway
        _check_records(store, manifest)
    return manifest


def _check_records(store: Store, manifest: Manifest) -> None:
    cell = manifest.id
    digest = store.records_sha256(cell)
    if digest is None:
        raise DamagedError("its records.parquet is missing")
    if manifest.records_sha256 and digest != manifest.records_sha256:
        raise DamagedError("its records.parquet is not the file that was written")
    table = store.read(cell, ["cell", "position"])
    if table.num_rows != manifest.images:
        raise DamagedError(
            f"its manifest counts {manifest.images} rows, and its records hold {table.num_rows}"
        )
    if not set(table.column("cell").unique().to_pylist()) <= {cell}:
        raise DamagedError("its records hold rows of another cell")
    if not np.array_equal(table.column("position").to_numpy(), np.arange(table.num_rows)):
        raise DamagedError("its records are not one row for each position")


def sound_manifests(store: Store) -> Iterator[Manifest]:
    """Yield the manifests of all cells that are sound; each damaged one is named in a caution and left out.

    Raises:
        StoreError: If one cannot be read, or is of another schema.
    """
    for cell in store.cells():
        try:
            manifest = sound_manifest(store, cell)
        except DamagedError as error:
            warnings.warn(
                f"cell {store.named(cell)} in {store.url} is damaged ({error}) and left out, so what is shown is "
                "incomplete; the command that computed it computes it again",
                Caution,
                stacklevel=2,
            )
            continue
        if manifest is not None:
            yield manifest


def usable(store: Store, cell: str) -> Manifest | None:
    """Return the manifest of a cell, None where it is to be computed; a damaged cell is set aside.

    Raises:
        StoreError: If it cannot be read, is of another schema, or cannot be renamed.
    """
    try:
        return sound_manifest(store, cell)
    except DamagedError as error:
        store.refuse_other(cell)
        place = store.set_aside(cell)
        warnings.warn(
            f"cell {store.named(cell)} in {store.url} is damaged ({error}); it was set aside as {place} and is "
            "computed again",
            Caution,
            stacklevel=2,
        )
        return None
