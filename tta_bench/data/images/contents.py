# SPDX-License-Identifier: Apache-2.0
"""The bytes of files as hashes that agree between machines; a file is read once until it changes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tta_bench.data.layouts.locate import CACHE_VARIABLE, cache_folder
from tta_bench.errors import BadInputError
from tta_bench.spec import digest
from tta_bench.spec.whole import write_whole

READERS = 8
SETTLED_S = 2.0  # a file that is younger may change again within one tick of its clock
TOLD_S = 1.0
"""Seconds between two words about how far the reading is."""
QUIET, KEPT_EVERY = 1000, 5000
"""Files that are read without a word at the end, and after how many the sums are kept meanwhile."""
State = list[int]
_listener: list[Callable[[int, int], None]] = [lambda done, total: None]


def state(path: str) -> State:
    """Return what changes on this machine when a file does, without reading it; empty if it is not there.

    It is the size and the times of the last change to the content and to the entry, in nanoseconds.
    """
    try:
        stat = os.stat(path)
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def file_sums(paths: Sequence[str]) -> list[str]:
    """Return the SHA-256 of each file, 16 hexadecimal digits; empty for one that cannot be read.

    The sums are kept in the cache folder by absolute path and `state`.

    Raises:
        BadInputError: If the cache folder cannot be written.
    """
    if not paths:
        return []
    absolute = [os.path.abspath(path) for path in paths]
    kept_in = cache_folder() / "file-sums" / f"{digest(os.path.commonpath(absolute), 24)}.json"
    known = _known(read_kept(kept_in))
    states = {path: state(path) for path in absolute}
    changed = [path for path, now in states.items() if known.get(path, ([], ""))[0] != now]
    fresh: dict[str, str] = {}
    told = time.monotonic()
    with ThreadPoolExecutor(READERS) as pool:
        for path, found in zip(changed, pool.map(_sum, changed), strict=True):
            fresh[path] = found
            if time.monotonic() - told >= TOLD_S or (len(fresh) == len(changed) and len(fresh) > QUIET):
                told = time.monotonic()
                _listener[0](len(fresh), len(changed))
            if len(fresh) % KEPT_EVERY == 0:
                known = _keep_lasting(kept_in, known, states, fresh)
    _keep_lasting(kept_in, known, states, fresh)
    return [fresh[path] if path in fresh else known.get(path, ([], ""))[1] for path in absolute]


def _keep_lasting(
    kept_in: Path, known: dict[str, tuple[State, str]], states: dict[str, State], fresh: dict[str, str]
) -> dict[str, tuple[State, str]]:
    """Keep the sums of files that are settled, so that a run which is ended need not read them again."""
    settled = (time.time() - SETTLED_S) * 1e9
    lasting = {path: found for path, found in fresh.items() if found and max(states[path][1:]) < settled}
    whole = known | {path: (states[path], found) for path, found in lasting.items()}
    if whole != known:
        keep(kept_in, whole)
    return whole


@contextmanager
def report_reading(listener: Callable[[int, int], None]) -> Iterator[None]:
    """Call a function with the files read and the files in all while `file_sums` reads many of them.

    Args:
        listener: Called every second at most, and at the end.
    """
    before, _listener[0] = _listener[0], listener
    try:
        yield
    finally:
        _listener[0] = before


def _known(kept: Any) -> dict[str, tuple[State, str]]:
    """Return the sums that a file of the cache holds, without what is damaged."""
    found = {}
    for path, one in kept.items() if isinstance(kept, dict) else ():
        if isinstance(one, list) and len(one) == 2 and isinstance(one[0], list) and isinstance(one[1], str):
            found[path] = (one[0], one[1])
    return found


def folder_sums(files: Sequence[Path]) -> list[list[str]]:
    """Return the name and the SHA-256 of each file."""
    sums = file_sums([str(file) for file in files])
    return [[file.name, found] for file, found in zip(files, sums, strict=True)]


def read_kept(path: Path) -> Any:
    """Return what was kept in a file of the cache, None if nothing that can be read was."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None


def keep(path: Path, content: object) -> None:
    """Write a file of the cache.

    Raises:
        BadInputError: If the cache folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content))
    except OSError as error:
        raise BadInputError(
            f"the cache {path} must be a file that can be written, but {error}; let {CACHE_VARIABLE} name a folder "
            "of yours"
        ) from error


def _sum(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError:
        return ""
