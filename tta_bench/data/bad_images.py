# SPDX-License-Identifier: Apache-2.0
"""Find pictures that cannot be decoded, once per set of files."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from tta_bench.data.loading import made_ahead
from tta_bench.data.locate import cache_folder
from tta_bench.data.pictures import Pictures, UnreadableImageError, decode
from tta_bench.spec import digest

CHUNK = 64


class _Try:
    """Decodes pictures and returns the positions of those that fail."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __call__(self, positions: Sequence[int]) -> list[int]:
        return [position for position in positions if not self._readable(position)]

    def _readable(self, position: int) -> bool:
        try:
            decode(self.pictures, position)
        except UnreadableImageError:
            return False
        return True


def unreadable(pictures: Pictures, positions: np.ndarray, content: str, workers: int) -> list[int]:
    """Return the positions whose pictures cannot be decoded; the answer is kept, so that it is found once.

    Args:
        pictures: Where they are.
        positions: Those that a run uses.
        content: Hash that changes with the files.
        workers: How many processes decode.
    """
    asked = np.sort(positions).tolist()
    path = cache_folder() / "bad-images" / f"{digest([content, asked], 24)}.json"
    if path.is_file():
        kept: list[int] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    chunks = [asked[start : start + CHUNK] for start in range(0, len(asked), CHUNK)]
    found = [position for bad in made_ahead(_Try(pictures), chunks, workers) for position in bad]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(found), encoding="utf-8")
    temporary.replace(path)
    return found
