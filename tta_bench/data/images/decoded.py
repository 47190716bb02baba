# SPDX-License-Identifier: Apache-2.0
"""Model inputs that are made once: kept in an unnamed file of the cache folder, which goes with the process."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Sequence
from typing import IO

import numpy as np
import torch
from torch import Tensor

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.images.source import ImageSource
from tta_bench.data.layouts.locate import cache_folder

MOST_BYTES = 16 << 30
"""Size of the file above which further images are decoded whenever they are asked for."""


class DecodedOnce:
    """Images whose model inputs are decoded when they are first asked for, and read from a file from then on.

    A folder that cannot be written to, or a full disk, keeps nothing, and every image is decoded again.

    Args:
        images: The images.
        preprocess: How they become inputs.
    """

    def __init__(self, images: ImageSource, preprocess: Preprocess) -> None:
        self._images, self._preprocess = images, preprocess
        self._row = 3 * preprocess.size[0] * preprocess.size[1]
        self._places: dict[int, int] = {}
        self._file = _unnamed_file()
        if self._file is not None:
            weakref.finalize(self, self._file.close)

    def load(self, positions: Sequence[int]) -> Tensor:
        """Return the model inputs (N, 3, H, W) uint8 of images.

        Raises:
            TTABenchError: What their reader raises.
        """
        missing = list(dict.fromkeys(one for one in positions if one not in self._places))
        made = dict(zip(missing, self._decoded(missing), strict=True))
        for position, pixels in made.items():
            self._keep(position, pixels)
        return torch.stack([made[one] if one in made else self._read(one) for one in positions])

    def _decoded(self, positions: Sequence[int]) -> Tensor | list[Tensor]:
        return self._images.load(positions, self._preprocess) if positions else []

    def _keep(self, position: int, pixels: Tensor) -> None:
        place = len(self._places) * self._row
        if self._file is None or place + self._row > MOST_BYTES:
            return
        try:
            self._file.seek(place)
            self._file.write(pixels.contiguous().numpy().tobytes())
        except OSError:
            self._file = None
            self._places.clear()
        else:
            self._places[position] = place

    def _read(self, position: int) -> Tensor:
        if self._file is None:  # the disk was full a moment ago
            return self._decoded([position])[0]
        self._file.seek(self._places[position])
        pixels = np.frombuffer(bytearray(self._file.read(self._row)), np.uint8)
        return torch.from_numpy(pixels).view(3, *self._preprocess.size)


def _unnamed_file() -> IO[bytes] | None:
    """Return a file without a name, None where none can be made."""
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder, buffering=0)
    except OSError:
        return None
