# SPDX-License-Identifier: Apache-2.0
"""The note that `tta-bench data corrupt` writes beside its images about how they were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tta_bench.errors import BadInputError

MANIFEST = "manifest.json"


def _lists(found: dict[str, Any]) -> bool:
    """Return whether the lists of a manifest are lists of names and numbers, where it has them."""
    kinds = {"corruptions": str, "severities": int}
    given = [(found[key], kind) for key, kind in kinds.items() if key in found]
    return all(isinstance(value, list) and all(type(one) is kind for one in value) for value, kind in given)


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a manifest.

    Raises:
        BadInputError: If it is damaged or is another program's.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(
            f"{path} must be the manifest of `tta-bench data corrupt`, but {error}; remove it and the images beside "
            "it, and make them again"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict) or not _lists(content):
        raise BadInputError(
            f"{path} must be the manifest of `tta-bench data corrupt`, got no settings in it; remove it and the "
            "images beside it, and make them again"
        )
    return content
