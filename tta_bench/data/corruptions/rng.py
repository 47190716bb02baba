# SPDX-License-Identifier: Apache-2.0
"""Per-image random numbers from a counter-based generator.

The key is a hash of (seed, image id, corruption, severity), so that a draw depends on neither the batch nor the
order nor the worker. Only raw Philox words are taken from NumPy, whose stream is fixed for good; the mapping to
normal and uniform numbers is ours, so the same key gives the same numbers under every NumPy release.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Floats = npt.NDArray[np.float32]


def image_key(seed: int, image_id: int | str, corruption: str, severity: int) -> npt.NDArray[np.uint64]:
    """Return the 128-bit generator key of one corrupted image.

    An integer id and its decimal string are two different ids.
    """
    kind, value = ("s", image_id) if isinstance(image_id, str) else ("i", str(index(image_id)))
    text = f"{index(seed)}\0{corruption}\0{severity}\0{kind}{value}"
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), dtype="<u8").astype(
        np.uint64
    )


@cache
def _normal_table() -> Floats:
    """Return the standard normal quantiles at the middles of 65,536 equal cells of probability."""
    table: Floats = ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)
    return table


@cache
def _tail_table() -> Floats:
    """Return the quantiles at the middles of 65,536 equal parts of the lowest of those cells."""
    table: Floats = ndtri((np.arange(65536) + 0.5) / 2.0**32).astype(np.float32)
    return table


class Stream:
    """The random numbers of one image, one corruption and one severity.

    Args:
        key: (2,) uint64, from `image_key`.
    """

    def __init__(self, key: npt.NDArray[np.uint64]) -> None:
        self._bits = np.random.Philox(key=key)

    def _words(self, count: int, dtype: type[np.unsignedinteger[Any]]) -> npt.NDArray[Any]:
        per_word = 8 // np.dtype(dtype).itemsize
        raw = self._bits.random_raw(-(-count // per_word))
        return raw.astype("<u8", copy=False).view(np.dtype(dtype).newbyteorder("<"))[:count]

    def uint16(self, *shape: int) -> npt.NDArray[np.uint16]:
        """Draw uniform 16-bit integers."""
        return self._words(math.prod(shape), np.uint16).reshape(shape)

    def uint31(self, *shape: int) -> npt.NDArray[np.int32]:
        """Draw uniform non-negative 31-bit integers."""
        return (self._words(math.prod(shape), np.uint32).reshape(shape) >> 1).astype(np.int32)

    def normal(self, *shape: int) -> Floats:
        """Draw standard normal numbers, exact to one 65,536th of probability, tails included.

        The inner cells of probability are represented by their middles; the two outermost cells, where one
        value would cut the tails off at 4.2 standard deviations, are drawn again inside the cell.
        """
        cells = self.uint16(math.prod(shape))
        values = _normal_table().take(cells)
        outer = np.flatnonzero(cells + np.uint16(1) <= 1)  # 65535 wraps to 0
        if len(outer):
            tail = _tail_table().take(self.uint16(len(outer)))
            values[outer] = np.where(cells[outer] == 0, tail, -tail)
        return values.reshape(shape)

    def uniform(self, low: float, high: float, *shape: int) -> Floats:
        """Draw uniform float32 numbers between two bounds."""
        unit = (self._words(math.prod(shape), np.uint32).reshape(shape) >> 8).astype(np.float32)
        scaled: Floats = unit * np.float32((high - low) / 2**24) + np.float32(low + (high - low) / 2**25)
        return scaled

    def offsets(self, reach: int, *shape: int) -> npt.NDArray[np.int8]:
        """Draw uniform integers from -reach to reach - 1 (reach at most 127)."""
        return ((self.uint16(*shape).astype(np.uint32) * (2 * reach) >> 16).astype(np.int16) - reach).astype(
            np.int8
        )
