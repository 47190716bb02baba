# SPDX-License-Identifier: Apache-2.0
"""Replay of golden folders of any family: find the folders, load the family's module, gather its results."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from tta_bench import registry
from tta_bench.errors import BadInputError
from tta_bench.parity.folder import read_json
from tta_bench.parity.judge import not_replayed
from tta_bench.parity.result import CaseResult

JUDGED = ("corruptions", "online", "vlm")
"""Golden families with a module of their name here, which has ``cases(folder, method)``."""


def replay(folder: Path, method: str | None = None) -> Iterator[CaseResult]:
    """Replay the golden cases of a folder, or of its sub-folders where it has no manifest of its own.

    Args:
        folder: Holds a ``manifest.json``, or folders that do.
        method: Replay this method (or corruption) alone.

    Raises:
        BadInputError: If no manifest is found, or none of a family that can be replayed.
    """
    folders = golden_folders(folder)
    if not any(_known(family) for _, family in folders):
        path, family = folders[0]
        raise BadInputError(
            f"golden vectors of family {family!r} in {str(path)!r} cannot be replayed; "
            f"families that can: {', '.join(sorted({*filter(_known, JUDGED), *_registered()}))}"
        )
    for path, family in folders:
        if _known(family):
            yield from _replayer(family)(path, method)
        elif method is None:
            yield not_replayed(family, "all", path.name, "there is no replay for this family")


def golden_folders(folder: Path) -> list[tuple[Path, str]]:
    """Return the golden folders at or right below a path, each with its family.

    Raises:
        BadInputError: If there is none.
    """
    if not folder.is_dir():
        raise BadInputError(
            f"expected a folder of golden vectors, got {str(folder)!r}, which is none; check it"
        )
    found = [folder] if (folder / "manifest.json").is_file() else []
    found = found or sorted(path.parent for path in folder.glob("*/manifest.json"))
    if not found:
        raise BadInputError(
            f"expected a manifest.json in {str(folder)!r} or in its sub-folders, found none; give a golden folder"
        )
    return [(path, str(read_json(path / "manifest.json").get("family"))) for path in found]


def _known(family: str) -> bool:
    here = family in JUDGED and importlib.util.find_spec(f"{__package__}.{family}") is not None
    return here or family in _registered()


def _registered() -> list[str]:
    """Return the families that packages replay by themselves."""
    return [name for name in registry.registered("replays") if "/" not in name]


def _replayer(family: str) -> Callable[[Path, str | None], Iterator[CaseResult]]:
    if family in _registered():
        return cast(Callable[[Path, str | None], Iterator[CaseResult]], registry.load("replays", family))
    module = importlib.import_module(f"{__package__}.{family}")
    return cast(Callable[[Path, str | None], Iterator[CaseResult]], module.cases)
