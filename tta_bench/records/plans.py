# SPDX-License-Identifier: Apache-2.0
"""The plans of a run folder: which cells were asked of it, so that a reader knows what is not there yet.

One run leaves ``plans/<plan>.json``, its cells, and ``plans/<plan>.yaml``, the options that ``--config`` reads; the
name is the hash of the cells, so that the same command leaves one plan however often it runs.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tta_bench.errors import Caution, DamagedError
from tta_bench.records.files import Files
from tta_bench.spec import Cell, digest
from tta_bench.spec.manifest import SCHEMA_VERSION, check_version, parse_json_object
from tta_bench.spec.plain import NotPlainError, from_plain, to_plain
from tta_bench.spec.texts import masked

FOLDER = "plans"
ID_LENGTH = 12


class StoredPlan(NamedTuple):
    """One plan.

    Attributes:
        time: When it was last asked for, ISO 8601 in UTC.
        cells: What was asked for.
    """

    time: str
    cells: tuple[Cell, ...]


def put_plan(files: Files, cells: Sequence[Cell], config: str = "") -> str:
    """Keep the plan of a run, with the options that it came from, and return its name.

    Args:
        files: Files of the store.
        cells: The cells that were asked for.
        config: The options as YAML; empty: none are kept.
    """
    plain = json.loads(masked(json.dumps([to_plain(cell) for cell in cells], sort_keys=True)))
    name = digest(plain, ID_LENGTH)
    content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "time": _now(), "cells": plain}
    if config:
        files.write(f"{FOLDER}/{name}.yaml", masked(config).encode())
    files.write(f"{FOLDER}/{name}.json", (json.dumps(content, sort_keys=True) + "\n").encode())
    return name


def read_plans(files: Files) -> list[StoredPlan]:
    """Return the plans of a run folder, the oldest first; one that cannot be read is named in a caution."""
    plans = []
    for name in files.names(FOLDER):
        path = f"{FOLDER}/{name}"
        if not name.endswith(".json") or (content := files.read(path)) is None:
            continue
        try:
            plans.append(_parsed(content, files.path(path)))
        except DamagedError as error:
            warnings.warn(
                f"{error}; until then nobody can tell whether the tables of {files.url} are complete",
                Caution,
                stacklevel=2,
            )
    return sorted(plans, key=lambda plan: plan.time)


def _parsed(content: bytes, path: str) -> StoredPlan:
    data = parse_json_object(content, path)
    check_version(data.get("schema_version"), path)
    cells, time = data.get("cells"), data.get("time")
    if not isinstance(cells, list) or not isinstance(time, str):
        raise DamagedError(f"{path} is not a plan of tta-bench; run the same command again")
    try:
        return StoredPlan(time, tuple(from_plain(Cell, one) for one in cells))
    except NotPlainError as error:
        raise DamagedError(
            f"{path} is not a plan of tta-bench: {error}; run the same command again"
        ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
