# SPDX-License-Identifier: Apache-2.0
"""The cache folder's contents for people: the origin of each entry, and the files that are not what was written."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from tta_bench.engine.feature_files import read_index
from tta_bench.engine.kept import FEATURES, Entry, intact


def about(entry: Entry) -> str:
    """Return what an entry is of, in words."""
    if entry.kind == FEATURES:
        return _features(entry.path)
    try:
        with safe_open(entry.path, framework="pt", device="cpu") as file:
            return (file.metadata() or {}).get("about", "") or "an initial state"
    except (OSError, SafetensorError):
        return "damaged"


def _features(folder: Path) -> str:
    facts = read_index(folder)
    if facts is None:
        return "an unfinished or damaged index"
    views = f", {facts['views']}" if facts["views"] else ""
    return f"{facts['images']} images of {facts['shift']} by {facts['model']}{views}, seed {facts['seed']}"


def damaged(entry: Entry) -> list[Path]:
    """Return the files of an entry that are not what was written; they are never used."""
    return [path for path in entry.files() if not intact(path)]
