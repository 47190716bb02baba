# SPDX-License-Identifier: Apache-2.0
"""Sentences at the end of a run on what to know before its numbers are trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tta_bench.spec import Manifest


def caution_lines(manifests: Iterable[Manifest]) -> list[str]:
    """Return every caution of some cells once, with the number of cells that it concerns."""
    counts = Counter(caution for one in manifests for caution in one.notes.cautions)
    return [
        f"Caution ({'1 cell' if cells == 1 else f'{cells} cells'}): {caution}"
        for caution, cells in counts.items()
    ]
