# SPDX-License-Identifier: Apache-2.0
"""Streams: which images of which shifts are seen, in which order, in which batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tta_bench.data.dataset import Shift
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.images.source import ImageSource
from tta_bench.errors import BadInputError
from tta_bench.spec import counter_seed, digest, subset_size


class Batch(NamedTuple):
    """Images that arrive together; their labels are not among it.

    Attributes:
        images: (N, 3, H, W) uint8, resized and cropped for the model; (N, 0) where nobody wants them.
        rows: Positions in the stream, 0-based.
        ids: One id per image.
        shifts: The shift of each image.
        number: Place of the batch in the stream, 0-based.
        first: Whether it begins with another shift than the batch before it ended with.
    """

    images: Tensor
    rows: range
    ids: tuple[str, ...]
    shifts: tuple[Shift, ...]
    number: int
    first: bool


class Part(NamedTuple):
    """One shift of a stream: its images and the positions that are seen, in order."""

    shift: Shift
    images: ImageSource
    positions: np.ndarray


class Stream:
    """An ordered list of (shift, position), cut into batches.

    Args:
        parts: The shifts; by default the stream shows one after another.
        batch_size: Images per batch.
        preprocess: The model's resize and crop.
        turns: (n,) which part each place of the stream shows the next image of; None: all of the first part, then
            all of the second, and so on.
        spans: Whether batches may span shifts; if not, a batch ends where its shift ends.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        batch_size: int,
        preprocess: Preprocess,
        *,
        turns: np.ndarray | None = None,
        spans: bool = False,
    ) -> None:
        self.parts, self.batch_size, self.preprocess = tuple(parts), batch_size, preprocess
        lengths = [len(part.positions) for part in self.parts]
        self._part = np.repeat(np.arange(len(lengths)), lengths) if turns is None else np.asarray(turns)
        assert np.array_equal(np.bincount(self._part, minlength=len(lengths)), lengths)
        self._position = self.in_order([np.asarray(part.positions, np.int64) for part in self.parts])
        self._starts = self._batch_starts(spans)
        self._turn: np.ndarray | None = None

    def _batch_starts(self, spans: bool) -> np.ndarray:
        """Return the row of each batch's first image."""
        changes = np.flatnonzero(np.diff(self._part)) + 1
        ends = [0, *([] if spans else changes.tolist()), len(self)]
        return np.concatenate([np.arange(begin, end, self.batch_size) for begin, end in pairwise(ends)])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._part)

    @property
    def batches(self) -> int:
        """Number of batches."""
        return len(self._starts)

    def border(self, row: int) -> int:
        """Return the last batch border at or before a row: where a run that has so many rows resumes."""
        if row >= len(self):
            return len(self)
        return int(self._starts[np.searchsorted(self._starts, row, side="right") - 1])

    def shard(self, index: int, count: int) -> range:
        """Return the rows of one of ``count`` ranges of about as many batches each; it may be empty."""
        ends = [*self._starts.tolist(), len(self)]
        return range(ends[index * self.batches // count], ends[(index + 1) * self.batches // count])

    def labels(self) -> np.ndarray:
        """Return the labels (n,) in stream order; for records only."""
        return self.in_order([part.images.labels[part.positions] for part in self.parts])

    def in_order(self, each: Sequence[np.ndarray]) -> np.ndarray:
        """Return values (n,) in stream order, given those of each part in its own order."""
        found = np.empty(len(self), dtype=each[0].dtype)
        for index, values in enumerate(each):
            found[self._part == index] = values
        return found

    def order_hash(self) -> str:
        """Return the hash of all shifts and image ids in stream order."""
        ends = [0, *(np.flatnonzero(np.diff(self._part)) + 1).tolist(), len(self)]
        runs = [range(begin, end) for begin, end in pairwise(ends) if begin < end]
        ids = [[str(self._shift(run.start)), [self._id(row) for row in run]] for run in runs]
        return digest(ids, 16)

    def within(self, rows: range) -> tuple[np.ndarray, np.ndarray]:
        """Return the part that each row shows an image of, and the place of this image in the part's own order."""
        if self._turn is None:
            self._turn = self.in_order([np.arange(len(part.positions)) for part in self.parts])
        place = slice(rows.start, rows.stop)
        return self._part[place], self._turn[place]

    def from_row(self, start: int = 0, stop: int | None = None, *, images: bool = True) -> Iterator[Batch]:
        """Yield the batches of a range of rows whose ends are where batches begin.

        Args:
            start: The first row.
            stop: The row behind the last; None: to the end.
            images: Whether images are loaded.
        """
        first = int(np.searchsorted(self._starts, start))
        last = self.batches if stop is None else int(np.searchsorted(self._starts, stop))
        chunks = [self._chunks(number) for number in range(first, last)] if images else []
        loaders = {
            index: batches_of(part.images, [c[index] for c in chunks if index in c], self.preprocess)
            for index, part in enumerate(self.parts)
        }
        for number in range(first, last):
            rows = self._rows(number)
            yield Batch(
                self._load(rows, loaders) if images else torch.empty(len(rows), 0, dtype=torch.uint8),
                rows,
                tuple(self._id(row) for row in rows),
                tuple(self._shift(row) for row in rows),
                number,
                rows.start == 0 or self._part[rows.start] != self._part[rows.start - 1],
            )

    def _rows(self, number: int) -> range:
        after = number + 1
        end = int(self._starts[after]) if after < self.batches else len(self)
        return range(int(self._starts[number]), end)

    def _chunks(self, number: int) -> dict[int, list[int]]:
        """Return the positions that a batch needs of each part, by the part's index."""
        rows = self._rows(number)
        parts, positions = (column[rows.start : rows.stop] for column in (self._part, self._position))
        return {int(index): positions[parts == index].tolist() for index in np.unique(parts)}

    def _load(self, rows: range, loaders: dict[int, Iterator[Tensor]]) -> Tensor:
        parts = self._part[rows.start : rows.stop]
        needed = [int(index) for index in np.unique(parts)]
        loaded = {index: next(loaders[index]) for index in needed}
        if len(needed) == 1:
            return loaded[needed[0]]
        images = torch.empty(len(rows), *loaded[needed[0]].shape[1:], dtype=torch.uint8)
        for index in needed:
            images[torch.from_numpy(parts == index)] = loaded[index]
        return images

    def _id(self, row: int) -> str:
        return self.parts[int(self._part[row])].images.ids[int(self._position[row])]

    def _shift(self, row: int) -> Shift:
        return self.parts[int(self._part[row])].shift


def batches_of(
    images: ImageSource, chunks: Sequence[Sequence[int]], preprocess: Preprocess
) -> Iterator[Tensor]:
    """Yield the model inputs of each chunk of positions, prefetched where the reader can do that."""
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
            f"subset {subset} is a list of ImageNet validation images, which this dataset does not have; use "
            "full, first-N or seeded-N",
            options=("subset",),
        )
    size = subset_size(subset)
    available = len(images)
    if size is not None and size > available:
        raise BadInputError(
            f"limit asks for {size} images per shift, but only {available} are there", options=("limit",)
        )
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
    """Return the positions without those that a reader cannot decode, where the run skips them."""
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
