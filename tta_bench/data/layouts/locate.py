# SPDX-License-Identifier: Apache-2.0
"""Where data may be: the folders of ``TTA_BENCH_DATA``, and the names that a dataset's folder goes by."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

DATA_VARIABLE = "TTA_BENCH_DATA"
CACHE_VARIABLE = "TTA_BENCH_CACHE"


def plain(name: str) -> str:
    """Return a name without case and separators: ``Real World``, ``real_world`` and ``RealWorld`` are one."""
    return "".join(character for character in name.lower() if character.isalnum())


def cache_folder() -> Path:
    """Return the folder for what can be recomputed: ``TTA_BENCH_CACHE``, or one in the user's cache."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "tta-bench"


def roots() -> list[Path]:
    """Return the folders that hold datasets, in the order in which they are tried.

    ``TTA_BENCH_DATA`` may name several, separated as in ``PATH``; without it there is one, below the cache.
    """
    given = [part for part in os.environ.get(DATA_VARIABLE, "").split(os.pathsep) if part.strip()]
    return [Path(part).expanduser() for part in given] or [cache_folder() / "data"]


def candidates(folders: Sequence[str]) -> list[Path]:
    """Return every existing folder that may hold a dataset.

    Args:
        folders: Names that its folder goes by, the official one first; ``"."`` is the root itself. Case and
            separators do not matter. A root that bears such a name itself is a candidate too.
    """
    found: dict[Path, None] = {}
    for root in roots():
        for path in _matches(root, folders):
            found.setdefault(path)
    return list(found)


def _matches(root: Path, folders: Sequence[str]) -> Iterator[Path]:
    if not root.is_dir():
        return
    entries = sorted(entry for entry in root.iterdir() if entry.is_dir())
    for folder in folders:
        if folder == ".":
            yield root
        elif (root / folder).is_dir():
            yield root / folder
        elif "/" not in folder:
            yield from (entry for entry in entries if plain(entry.name) == plain(folder))
        if plain(Path(os.path.abspath(root)).name) == plain(folder):
            yield root


def tried(folders: Sequence[str]) -> list[str]:
    """Return the paths that were looked at, for a sentence: the official name below every root."""
    return [str(root / folders[0]) if folders[0] != "." else str(root) for root in roots()]
