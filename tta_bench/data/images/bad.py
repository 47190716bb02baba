# SPDX-License-Identifier: Apache-2.0
"""Find images that cannot be decoded, once per set of files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tta_bench.data.images.contents import keep, read_kept
from tta_bench.data.images.files import EncodedFiles, UnreadableImageError, decode
from tta_bench.data.images.prefetch import prefetch
from tta_bench.data.layouts.locate import cache_folder
from tta_bench.spec import digest

CHUNK = 64


class _Try:
    """Decodes images and returns the positions of those that fail, each with whether it may be whole."""

    def __init__(self, images: EncodedFiles) -> None:
        self.images = images

    def __call__(self, positions: Sequence[int]) -> list[tuple[int, bool]]:
        failures = []
        for position in positions:
            try:
                decode(self.images, position)
            except UnreadableImageError as error:
                failures.append((position, error.passing))
        return failures


def unreadable(images: EncodedFiles, positions: np.ndarray, workers: int) -> list[int]:
    """Return the positions whose images cannot be decoded.

    The answer is kept until a file changes, so that it is found once; not if the system refused to read one.

    Args:
        images: Where they are.
        positions: Those that a run uses.
        workers: How many processes decode.

    Raises:
        BadInputError: If the cache folder cannot be written.
    """
    asked = np.sort(positions).tolist()
    versions = [images.version(position) for position in asked]
    path = cache_folder() / "bad-images" / f"{digest(versions, 24)}.json"
    kept = read_kept(path)
    if isinstance(kept, list) and all(type(index) is int and 0 <= index < len(asked) for index in kept):
        return [asked[index] for index in kept]
    chunks = [asked[start : start + CHUNK] for start in range(0, len(asked), CHUNK)]
    found = [one for failures in prefetch(_Try(images), chunks, workers) for one in failures]
    bad = [position for position, _ in found]
    if not any(passing for _, passing in found):
        keep(path, np.searchsorted(asked, bad).tolist())
    return bad
