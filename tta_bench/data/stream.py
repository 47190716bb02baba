# SPDX-License-Identifier: Apache-2.0
"""Streams: which images of a shift are seen, in which order, in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from tta_bench.data.dataset import Shift
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.images.source import ImageSource
from tta_bench.errors import BadInputError
from tta_bench.spec import counter_seed, digest, subset_size


class Batch(NamedTuple):
    """Images that arrive together; their labels are not among it.

    Attributes:
        images: (N, 3, H, W) uint8, resized and cropped for the model.
        rows: Positions in the stream, 0-based.
        ids: One id per image.
        shift: Where they come from.
        first: Whether this is the first batch of its shift.
    """

    images: Tensor
    rows: range
    ids: tuple[str, ...]
    shift: Shift
    first: bool


class Part(NamedTuple):
    """One shift of a stream: its images and the positions that are seen, in order."""

    shift: Shift
    images: ImageSource
    positions: np.ndarray


class Stream:
    """Batches of one shift, or of several one after another; batches never span two shifts.

    Args:
        parts: The shifts in order.
        batch_size: Images per batch; the last batch of a shift may be smaller.
        preprocess: The model's resize and crop.
    """

    def __init__(self, parts: Sequence[Part], batch_size: int, preprocess: Preprocess) -> None:
        self.parts, self.batch_size, self.preprocess = tuple(parts), batch_size, preprocess

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(len(part.positions) for part in self.parts)

    @property
    def batches(self) -> int:
        """Number of batches."""
        return sum(-(-len(part.positions) // self.batch_size) for part in self.parts)

    def labels(self) -> np.ndarray:
        """Return the labels (n,) in stream order; for records only."""
        return np.concatenate([part.images.labels[part.positions] for part in self.parts])

    def order_hash(self) -> str:
        """Return the hash of all image ids in stream order."""
        ids = [[str(part.shift), [part.images.ids[p] for p in part.positions]] for part in self.parts]
        return digest(ids, 16)

    def from_row(self, start: int = 0) -> Iterator[Batch]:
        """Yield the batches from stream position ``start`` on, which must be where a batch begins."""
        row = 0
        for part in self.parts:
            begins = range(0, len(part.positions), self.batch_size)
            chunks = [part.positions[begin : begin + self.batch_size].tolist() for begin in begins]
            rows = [
                range(row + begin, row + begin + len(chunk))
                for begin, chunk in zip(begins, chunks, strict=True)
            ]
            row += len(part.positions)
            left = [index for index, one in enumerate(rows) if one.start >= start]
            made = batches_of(part.images, [chunks[index] for index in left], self.preprocess)
            for index, images in zip(left, made, strict=True):
                ids = tuple(part.images.ids[position] for position in chunks[index])
                yield Batch(images, rows[index], ids, part.shift, index == 0)


def batches_of(
    images: ImageSource, chunks: Sequence[Sequence[int]], preprocess: Preprocess
) -> Iterator[Tensor]:
    """Yield the model inputs of each chunk of positions, made ahead where the reader can do that."""
    ahead = getattr(images, "batches", None)
    if ahead is not None:
        yield from ahead(chunks, preprocess)
    else:
        yield from (images.load(chunk, preprocess) for chunk in chunks)


def choose(images: ImageSource, subset: str, seed: int) -> np.ndarray:
    """Return the positions of a subset in the order of a seed.

    Membership depends on the subset's name alone, order on the seed alone: each image is ranked by a hash of
    the seed and its id, so neither a library's shuffle nor the number of images changes it.

    Raises:
        BadInputError: If the subset is larger than the dataset or is not one of its own, or no image is there or
            readable.
    """
    named = getattr(images, "subset", None)
    listed: np.ndarray | None = named(subset) if named is not None else None
    return _usable(images, _ranked(images, _members(images, subset, listed), ("order", seed)))


def _members(images: ImageSource, subset: str, listed: np.ndarray | None) -> np.ndarray:
    """Return the positions of a subset: those that the dataset lists, or those that its name stands for."""
    if listed is not None:
        return listed
    if subset.startswith("robustbench"):
        raise BadInputError(
            f"--subset {subset} is a list of ImageNet validation images, which this dataset does not have; use "
            "full, first-N or seeded-N"
        )
    size = subset_size(subset)
    available = len(images)
    if size is not None and size > available:
        raise BadInputError(f"--limit asks for {size} images per shift, but only {available} are there")
    if not available:
        raise BadInputError(
            "the stream must have at least one image, got none; check the dataset's list with `tta-bench data check`"
        )
    positions = np.arange(available)
    if size is not None:
        ranked = positions if subset.startswith("first") else _ranked(images, positions, ("subset", size))
        positions = np.sort(ranked[:size])
    return positions


def _usable(images: ImageSource, positions: np.ndarray) -> np.ndarray:
    """Return the positions without those that a reader found unreadable and was told to leave out."""
    usable = getattr(images, "usable", None)
    kept: np.ndarray = positions if usable is None else usable(positions)
    if len(positions) and not len(kept):
        raise BadInputError(f"none of the {len(positions)} images can be decoded; fetch the dataset again")
    return kept


def _ranked(images: ImageSource, positions: np.ndarray, key: tuple[object, ...]) -> np.ndarray:
    salt = counter_seed(*key).to_bytes(8, "big")
    ranks = [
        hashlib.blake2b(images.ids[position].encode(), digest_size=8, key=salt).digest()
        for position in positions
    ]
    return positions[np.argsort(np.array(ranks, dtype="S8"), kind="stable")]
