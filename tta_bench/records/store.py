# SPDX-License-Identifier: Apache-2.0
"""A run folder: manifests, records and cached scores under one URL.

Layout::

    <url>/tta-bench.json                    marker with the schema version
    <url>/cells/<cell>/manifest.json        what was run and how it ended
    <url>/cells/<cell>/owner.json           the process that writes it, while it runs
    <url>/cells/<cell>/part-00000.parquet   records while running
    <url>/cells/<cell>/state-00064.safetensors  the state after so many of them, where one is carried
    <url>/cells/<cell>/records.parquet      records once finished
    <url>/plans/<plan>.json                 the cells that a run was asked for
    <url>/plans/<plan>.yaml                 the options that it came from
    <url>/scores/<key>.parquet              source scores shared by the cells
    <url>/scores/<key>.claim                the process that computes them
    <url>/shards/<cell>/<i>-of-<n>/         ranges of a cell that are computed apart, laid out like this folder
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import pyarrow as pa

from tta_bench.engine.ports import SavedState
from tta_bench.errors import DamagedError, StoreError
from tta_bench.records.claims import found_or_claimed
from tta_bench.records.files import Files
from tta_bench.records.measures import different_predictions, measured_table, with_measures
from tta_bench.records.owner import OWNER, refuse_other
from tta_bench.records.parts import RECORDS, intact_parts, part_names
from tta_bench.records.plans import StoredPlan, put_plan, read_plans
from tta_bench.records.process import TEMPORARY
from tta_bench.records.schema import ADDED, RECORD_SCHEMA
from tta_bench.records.states import last_state
from tta_bench.records.writer import CellWriter
from tta_bench.spec import Cell
from tta_bench.spec.manifest import (
    SCHEMA_VERSION,
    Manifest,
    check_version,
    parse_json_object,
    parse_manifest,
)

MARKER = "tta-bench.json"
MANIFEST = "manifest.json"
DAMAGED = ".damaged"
PROBE = f"{TEMPORARY}probe"
FLUSH_ROWS = 4096
FLUSH_SECONDS = 5.0
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+-]*")


class Store:
    """Hold the results of runs under one URL.

    Args:
        url: A plain path or any URL that fsspec knows.

    Raises:
        StoreError: If the URL cannot be understood.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self._files = Files(url)

    @property
    def url(self) -> str:
        """Return the URL as it was given, but for its password."""
        return self._files.url

    def open(self, create: bool) -> Store:
        """Check that the folder is ours; with ``create``, make it if needed and check that it can be written.

        Returns:
            The store itself.

        Raises:
            StoreError: If the folder is missing, foreign, of another schema, or cannot be written.
        """
        try:
            marked = self._check_marker(create)
        except OSError as error:
            raise StoreError(
                f"the run folder {self.url} should be readable and is not ({error}); choose another path"
            ) from error
        if create:
            content = {"schema_version": SCHEMA_VERSION, "tool": "tta-bench"}
            name = PROBE if marked else MARKER  # a probe: an old folder may be read-only by now
            self._files.write(name, (json.dumps(content) + "\n").encode())
            self._files.remove(PROBE)
            for folder in ("", "scores", "plans", *(_folder(cell) for cell in self.cells())):
                self._files.remove_abandoned(folder)
        elif not marked:
            raise StoreError(
                f"there is no run folder at {self.url}; check the path, or make one with tta-bench run"
            )
        return self

    def _check_marker(self, create: bool) -> bool:
        if self._files.is_file():
            raise StoreError(
                f"the run folder {self.url} should be a folder and is a file; choose another path"
            )
        marker = self._files.read(MARKER)
        if marker is not None:
            path = self._files.path(MARKER)
            try:
                check_version(parse_json_object(marker, path).get("schema_version"), path)
            except DamagedError as error:
                if create and "cells" in self._files.names():
                    return False  # it tells nothing but the schema, which every manifest does too
                raise DamagedError(f"{path} is damaged; the command tta-bench run writes it again") from error
            return True
        names = self._files.names()
        if names:
            raise StoreError(
                f"{self.url} should be empty or a run folder of tta-bench; it holds {names[0]!r} and no "
                f"{MARKER}, so choose another folder"
            )
        return False

    def manifest(self, cell: str) -> Manifest | None:
        """Return the manifest of a cell, or None if the cell was never started.

        Raises:
            StoreError: If it is damaged, foreign or of another schema.
        """
        name = f"{_folder(cell)}/{MANIFEST}"
        content = self._files.read(name)
        return None if content is None else parse_manifest(content, self._files.path(name))

    def manifests(self) -> list[Manifest]:
        """Return the manifests of all started cells, sorted by cell id.

        Raises:
            StoreError: If one is damaged, foreign or of another schema.
        """
        manifests = (self.manifest(cell) for cell in self.cells())
        return [manifest for manifest in manifests if manifest is not None]

    def cells(self) -> list[str]:
        """Return the ids of all cells, sorted; what was set aside is none, nor is a file that someone put there.

        Raises:
            StoreError: If there is a file in the place of their folder.
        """
        if self._files.is_file("cells"):
            raise StoreError(
                f"{self._files.path('cells')} should be a folder and is a file; move it away, or choose another run "
                "folder with output=",
                options=("output",),
            )
        names = self._files.names("cells")
        return [name for name in names if _NAME.fullmatch(name) and DAMAGED not in name]

    def named(self, cell: str) -> str:
        """Return the id of a cell with what it is called, or the id alone where its manifest does not say."""
        try:
            manifest = self.manifest(cell)
        except StoreError:
            manifest = None
        return cell if manifest is None else f"{cell} ({manifest.cell.label})"

    def has_records(self, cell: str) -> bool:
        """Return whether anything was recorded of a cell, intact or not."""
        return self._files.is_file(f"{_folder(cell)}/{RECORDS}") or bool(part_names(self._files, cell))

    def records_sha256(self, cell: str) -> str | None:
        """Return the hash of the records of a finished cell, None where they are missing."""
        return self._files.sha256(f"{_folder(cell)}/{RECORDS}")

    def records_bytes(self, cell: str) -> int:
        """Return the size of the records of a finished cell, 0 where they are missing."""
        return self._files.size(f"{_folder(cell)}/{RECORDS}")

    def set_aside(self, cell: str) -> str:
        """Rename the folder of a damaged cell, and return its new path.

        Raises:
            StoreError: If it cannot be renamed.
        """
        taken, name, count = set(self._files.names("cells")), f"{_folder(cell)}{DAMAGED}", 1
        while name.rpartition("/")[2] in taken:
            count += 1
            name = f"{_folder(cell)}{DAMAGED}-{count}"
        self._files.rename(_folder(cell), name)
        return self._files.path(name)

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest of a cell; a reader sees the old one or the new one, never half of it."""
        self._files.write(f"{_folder(manifest.id)}/{MANIFEST}", manifest.to_json())

    def rows_done(self, cell: str, first: int = 0) -> int:
        """Return how many records from the start of a cell, at position ``first``, are intact.

        A part that is torn or missing ends the count: it and all behind it are computed again.
        """
        _folder(cell)
        return sum(part.rows for part in intact_parts(self._files, cell, first))

    def state(self, cell: str) -> SavedState | None:
        """Return the last state of a cell under way that intact records led to, None where there is none."""
        _folder(cell)
        return last_state(self._files, cell)

    def shard(self, cell: str, index: int, count: int) -> Store:
        """Return where one range of a cell is kept until all are there."""
        other = copy(self)
        other._files = self._files.below(f"{shards_of(cell)}/{index}-of-{count}")
        return other

    def remove_shards(self, cell: str) -> None:
        """Remove the ranges of a cell that were computed apart."""
        self._files.remove_folder(shards_of(cell))

    def is_written(self, cell: str) -> bool:
        """Return whether another process of this host is writing a cell."""
        try:
            self.refuse_other(cell)
        except StoreError:
            return True
        return False

    def refuse_other(self, cell: str) -> None:
        """Refuse a cell that another process of this host is writing.

        Raises:
            StoreError: With the process and since when.
        """
        _folder(cell)
        refuse_other(self._files, cell)

    def writer(
        self,
        cell: str,
        *,
        resume: bool,
        flush_rows: int = FLUSH_ROWS,
        flush_seconds: float = FLUSH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        first: int = 0,
        rows: int | None = None,
    ) -> CellWriter:
        """Return a writer that continues behind the intact records of a cell, or starts it again without ``resume``.

        The further arguments are those of `CellWriter`.
        """
        _folder(cell)
        return CellWriter(
            self._files,
            cell,
            resume=resume,
            write_manifest=self.write_manifest,
            flush_rows=flush_rows,
            flush_seconds=flush_seconds,
            clock=clock,
            first=first,
            rows=rows,
        )

    def read(self, cell: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the records of a cell in position order.

        Args:
            cell: Cell id.
            columns: Columns to read; all if None.

        Raises:
            StoreError: If the cell has no records or they are damaged.
        """
        folder = _folder(cell)
        wanted = RECORD_SCHEMA.names if columns is None else list(columns)
        joined = f"{folder}/{RECORDS}"
        names = (
            [joined]
            if self._files.is_file(joined)
            else [part.name for part in intact_parts(self._files, cell)]
        )
        if not names:
            raise StoreError(
                f"cell {self.named(cell)} in {self.url} has no records yet; run it with resume=True",
                options=("resume",),
            )
        try:
            tables = [
                _with_added(self._files.read_table(name, wanted, verify=True), wanted) for name in names
            ]
        except (OSError, ValueError, KeyError) as error:
            raise DamagedError(
                f"the records of cell {self.named(cell)} in {self.url} are damaged ({error}); run the same "
                "command again"
            ) from error
        return pa.concat_tables(tables).unify_dictionaries()

    def retime(self, manifest: Manifest, batches: Sequence[Mapping[str, Any]]) -> int:
        """Put new times and memory in the place of a finished cell's, if its predictions are the same.

        Args:
            manifest: The cell's, with what was measured; the hash of its records is filled in.
            batches: The columns of each batch, as `CellWriter.append` takes them.

        Returns:
            How many predictions differ, counting images that are missing; nothing is written unless it is 0.

        Raises:
            StoreError: If the records cannot be read or written.
        """
        old = self.read(manifest.id)
        new = measured_table(manifest.id, batches)
        differing = different_predictions(old, new)
        if not differing:
            name = f"{_folder(manifest.id)}/{RECORDS}"
            self._files.write_table(name, with_measures(old, new))
            self.write_manifest(replace(manifest, records_sha256=self._files.sha256(name) or ""))
        return differing

    def put_plan(self, cells: Sequence[Cell], config: str = "") -> str:
        """Keep the plan of a run, with its options as YAML, and return its name."""
        return put_plan(self._files, cells, config)

    def plans(self) -> list[StoredPlan]:
        """Return the plans of all runs into this folder, the oldest first."""
        return read_plans(self._files)

    def scores(self, key: str) -> pa.Table | None:
        """Return a cached table of scores, or None if it is absent or damaged: compute it again."""
        try:
            return self._files.read_table(_score_file(key), verify=True)
        except (OSError, ValueError):  # a cache: what cannot be read is computed again
            return None

    def scores_or_claim(self, key: str) -> pa.Table | None:
        """Return a cached table of scores, waiting for a process that computes it; None: compute it now."""
        return found_or_claimed(self._files, _claim_file(key), lambda: self.scores(key))

    def put_scores(self, key: str, table: pa.Table) -> None:
        """Keep a table of scores under a key."""
        self._files.write_table(_score_file(key), table)
        self._files.remove(_claim_file(key))

    def copy_to(self, other: Store, cell: str) -> None:
        """Copy a cell with all its records to another store; its manifest comes last, as it says what is there.

        Raises:
            StoreError: If a file cannot be read or written.
        """
        folder = _folder(cell)
        for name in sorted(self._files.names(folder), key=lambda name: name == MANIFEST):
            content = self._files.read(f"{folder}/{name}")
            if content is not None and name != OWNER:
                other._files.write(f"{folder}/{name}", content)

    def remove(self, cell: str) -> None:
        """Remove a cell with all its records, if it is there."""
        self._files.remove_folder(_folder(cell))


def _with_added(table: pa.Table, wanted: Sequence[str]) -> pa.Table:
    """Return the wanted columns of a table, null where they were added after it was written."""
    for name in ADDED.intersection(wanted) - set(table.column_names):
        table = table.append_column(
            RECORD_SCHEMA.field(name), pa.nulls(len(table), RECORD_SCHEMA.field(name).type)
        )
    return table.select(wanted)


def _folder(cell: str) -> str:
    return f"cells/{_checked('cell id', cell)}"


def shards_of(cell: str) -> str:
    """Return the folder of a cell's ranges below the store."""
    return f"shards/{_checked('cell id', cell)}"


def _score_file(key: str) -> str:
    return f"scores/{_checked('score key', key)}.parquet"


def _claim_file(key: str) -> str:
    return f"scores/{_checked('score key', key)}.claim"


def _checked(kind: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"a {kind} should be of letters, digits and ._=+- and start with neither . nor -, got {name!r}"
        )
    return name
