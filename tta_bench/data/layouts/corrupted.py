# SPDX-License-Identifier: Apache-2.0
"""What `tta-bench data corrupt` writes beside its pictures about how they were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tta_bench.errors import BadInputError

MANIFEST = "manifest.json"


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a manifest.

    Raises:
        BadInputError: If it is damaged or is another program's.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"{path} must be the manifest of `tta-bench data corrupt`, but {error}; remove it and the pictures beside "
            "it, and make them again"
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
        raise BadInputError(
            f"{path} must be the manifest of `tta-bench data corrupt`, got no settings in it; remove it and the "
            "pictures beside it, and make them again"
        )
    return found
