# SPDX-License-Identifier: Apache-2.0
"""Random numbers of PocketScenes: every image owns a Philox stream keyed by (split, seed, index).

Only the raw 64-bit output of the generator is used, because numpy promises that this never changes,
and it is turned into floats by exact operations. So an image has the same numbers in any batch, in any
order, on any platform. They are float64, and so is all that is made of them: float32 rounds differently in the
mathematics library of another processor, and a pixel value that falls near a half would then round to another byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from itertools import accumulate
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.pocket.scenes.spec import CLASS_NAMES, MAX_CLUTTER, SIDE, look_of

OCTAVES = (4, 8, 16)
REAL = torch.float64
"""The precision of every field and colour before it becomes a byte."""
_SLOTS: dict[str, tuple[int, ...]] = {
    "background": (), "colour": (), "texture": (), "jitter": (3,), "accent": (),
    "turn": (), "scale": (), "shift": (2,), "aspect": (), "shear": (), "flip": (),
    "light": (), "shade": (), "texture_shape": (4,), "scenery": (6,), "tint": (3,),
    "clutter_count": (), "clutter": (MAX_CLUTTER, 8), "occluder": (6,),
    "gain": (), "contrast": (), "noise": (), "style": (6,),
    **{f"lattice{g}": (g + 1, g + 1) for g in OCTAVES},
    "grain": (SIDE, SIDE),
}  # fmt: skip
_ENDS = tuple(accumulate(prod(shape) for shape in _SLOTS.values()))
_SLICES = {
    name: slice(end - prod(shape), end) for (name, shape), end in zip(_SLOTS.items(), _ENDS, strict=True)
}
_NUMBERS = _ENDS[-1]
_SENSOR = 3 * SIDE * SIDE
_WORDS = (_NUMBERS + _SENSOR + 1) // 2


class Draws:
    """Give the random numbers of a batch of images by name.

    Args:
        uniform: (N, U) float64 in [0, 1), the slots side by side.
        sensor: (N, 3, H, W) float64, nearly normal pixel noise with unit variance.
    """

    def __init__(self, uniform: Tensor, sensor: Tensor) -> None:
        self._uniform, self.sensor = uniform, sensor

    @classmethod
    def from_words(cls, words: npt.NDArray[np.uint32]) -> Draws:
        """Return the draws made from raw random words.

        Args:
            words: (N, W) uint32, one row per image.
        """
        uniform = (words[:, :_NUMBERS] >> np.uint32(8)).astype(np.float64) * 2.0**-24
        octets = words[:, _NUMBERS : _NUMBERS + _SENSOR].astype("<u4").view(np.uint8).reshape(-1, _SENSOR, 4)
        total = octets.sum(axis=2, dtype=np.float64)
        # The sum of four bytes has mean 510 and variance 4 * (256^2 - 1) / 12 = 147.8^2: nearly normal.
        normal = (total - 510) * (1 / 147.8)
        return cls(torch.from_numpy(uniform), torch.from_numpy(normal).reshape(-1, 3, SIDE, SIDE))

    def rows(self, rows: Tensor) -> Draws:
        """Return the draws of some of the images."""
        return Draws(self._uniform[rows], self.sensor[rows])

    def __getitem__(self, name: str) -> Tensor:
        """Return the uniform numbers of a slot, (N, ...) in [0, 1)."""
        return self._uniform[:, _SLICES[name]].reshape(-1, *_SLOTS[name])

    def between(self, name: str, low: float, high: float) -> Tensor:
        """Return the numbers of a slot scaled to [low, high)."""
        return self[name] * (high - low) + low

    def choice(self, name: str, count: int) -> Tensor:
        """Return a whole number below ``count`` for each image, (N,) int64."""
        return (self[name] * count).floor().long().clamp(max=count - 1)


def real(values: object) -> Tensor:
    """Return numbers as a float64 tensor, whatever torch's default is."""
    return torch.tensor(values, dtype=REAL)


def _key(split: str, seed: int, purpose: str) -> int:
    """Return the 64-bit stream key of a split, a seed and a purpose."""
    digest = sha256(f"pocketscenes/{purpose}/{split}/{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def as_indices(split: str, indices: Sequence[int] | Tensor) -> list[int]:
    """Return image indices as a list of whole numbers.

    Raises:
        UnknownNameError: If there is no such split.
        BadInputError: If an index lies outside the split.
    """
    size = look_of(split).size
    listed = [int(i) for i in (indices.tolist() if isinstance(indices, Tensor) else indices)]
    for i in listed:
        if not 0 <= i < size:
            raise BadInputError(
                f"a PocketScenes {split} index must lie in 0..{size - 1}, got {i}; choose indices below {size}"
            )
    return listed


def draw(split: str, indices: Sequence[int], seed: int) -> Draws:
    """Draw all random numbers of the given images."""
    key = _key(split, seed, "image")
    words = np.empty((len(indices), 2 * _WORDS), dtype=np.uint32)
    for row, index in enumerate(indices):
        raw = np.random.Philox(key=key | (index << 64)).random_raw(_WORDS)
        words[row] = raw.astype("<u8").view("<u4")
    return Draws.from_words(words)


@cache
def _all_labels(split: str, seed: int) -> Tensor:
    """Return the labels of a whole split: equally many of each class, in an order shuffled by the seed."""
    size = look_of(split).size
    raw = np.random.Philox(key=_key(split, seed, "labels")).random_raw(size)
    rank = np.empty(size, dtype=np.int64)
    rank[np.argsort(raw, kind="stable")] = np.arange(size)
    return torch.from_numpy(rank % len(CLASS_NAMES))


def labels_of(split: str, indices: Sequence[int] | Tensor, seed: int = 0) -> Tensor:
    """Return the labels of images without drawing them.

    Args:
        split: Name of the split.
        indices: Image indices below the split's size.
        seed: Seed of the data set.

    Returns:
        (N,) int64.

    Raises:
        UnknownNameError: If there is no such split.
        BadInputError: If an index lies outside the split.
    """
    return _all_labels(split, seed)[torch.tensor(as_indices(split, indices), dtype=torch.int64)]
