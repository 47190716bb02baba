# SPDX-License-Identifier: Apache-2.0
"""Check what a reader gives before anything is computed from it: ids and labels once, pixels at every batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tta_bench.data.dataset import Dataset, OpenRequest, Shift
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.images.source import ImageSource
from tta_bench.errors import PluginError, TTABenchError
from tta_bench.registry import ANYTHING, brief


class CheckedImages:
    """The images of a reader, whose batches are checked as they come; all else is the reader's own.

    Args:
        images: What the reader gave.
        where: What messages call it.
    """

    def __init__(self, images: ImageSource, where: str) -> None:
        self.images, self.where = images, where
        self.ids: Sequence[str] = images.ids
        self.labels: np.ndarray = np.asarray(images.labels, dtype=np.int64)
        if hasattr(images, "batches"):
            self.batches = self._batches

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.ids)

    def __getattr__(self, name: str) -> Any:
        """Return what the reader has besides: its hash, subsets, origin."""
        if name in ("images", "where") or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.images, name)

    def load(self, positions: Sequence[int], preprocess: Preprocess) -> Tensor:
        """Return the model inputs (N, 3, H, W) uint8 of images.

        Raises:
            PluginError: If the reader gives something else.
        """
        return self._checked(self.images.load(positions, preprocess), len(positions), preprocess)

    def _batches(self, chunks: Sequence[Sequence[int]], preprocess: Preprocess) -> Iterator[Tensor]:
        made = iter(self.images.batches(chunks, preprocess))  # type: ignore[attr-defined]
        for number, chunk in enumerate(chunks):
            batch = next(made, None)
            if batch is None:
                raise PluginError(
                    f"{self.where} must give {len(chunks)} batches, got {number}; check its `batches`"
                )
            yield self._checked(batch, len(chunk), preprocess)

    def _checked(self, batch: object, count: int, preprocess: Preprocess) -> Tensor:
        wanted = (count, 3, *preprocess.size)
        if not isinstance(batch, Tensor):
            raise PluginError(
                f"{self.where} must give a uint8 tensor {wanted} for {count} images, got {type(batch).__name__}; "
                "return torch.from_numpy of the array"
            )
        if batch.dtype != torch.uint8 or tuple(batch.shape) != wanted:
            raise PluginError(
                f"{self.where} must give uint8 images {wanted} (images, channels, height, width), got {batch.dtype} "
                f"{tuple(batch.shape)}; apply the preprocessing that `load` is given"
            )
        return batch


class Unread:
    """The images of a reader that failed: none."""

    data_hash = "unread"
    ids: Sequence[str] = ()
    labels: np.ndarray = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Return 0."""
        return 0

    def load(self, positions: Sequence[int], preprocess: Preprocess) -> Tensor:
        """Return no images."""
        return torch.empty(0, 3, *preprocess.size, dtype=torch.uint8)


def open_checked(dataset: Dataset, request: OpenRequest) -> ImageSource:
    """Return the images of one shift of a dataset, checked.

    Raises:
        BadInputError: If they are not there.
        PluginError: If the reader fails, or gives what no method can be given.
    """
    return _read(lambda: dataset.open(request), dataset, request.shift)


def split_checked(dataset: Dataset) -> ImageSource:
    """Return the source images of a dataset that provides some, checked. Errors are those of `open_checked`."""
    assert dataset.source_split is not None
    return _read(dataset.source_split, dataset, f"the source images of {dataset.name}")


def _read(make: Callable[[], ImageSource], dataset: Dataset, shift: Shift | str) -> ImageSource:
    try:
        return checked(make(), dataset, shift)
    except (TTABenchError, KeyboardInterrupt):
        raise
    except ANYTHING as error:  # a reader is anybody's code
        raise PluginError(
            f"the reader of {shift} failed with {brief(error)}; its author can fix it, and other datasets still run"
        ) from error


def checked(images: ImageSource, dataset: Dataset, shift: Shift | str) -> ImageSource:
    """Return the images of a reader after a look at their number, ids and labels; its batches are checked later.

    Args:
        images: What the reader gave.
        dataset: That they belong to.
        shift: Which images they are, for messages.

    Raises:
        PluginError: If ids are no distinct texts, or labels no whole numbers that index the classes, one per image.
    """
    where = f"the reader of {shift}"
    for part in ("ids", "labels", "data_hash", "load"):
        if not hasattr(images, part):
            raise PluginError(f"{where} must have {part!r}, got {type(images).__name__}, which has none")
    _check_ids(images, where)
    _check_labels(images, len(dataset.class_names), where)
    return CheckedImages(images, where)


def _check_ids(images: ImageSource, where: str) -> None:
    ids = images.ids
    if len(ids) != len(images):
        raise PluginError(f"{where} must have one id per image, got {len(ids)} ids for {len(images)} images")
    for one in ids:
        if not isinstance(one, str) or not one:
            raise PluginError(
                f"{where} must have texts as ids, got {one!r} ({type(one).__name__}); use str(...)"
            )
    name, count = Counter(ids).most_common(1)[0] if len(ids) else ("", 0)
    if count > 1:
        raise PluginError(
            f"{where} must have distinct ids, got {name!r} {count} times; add the folder to the id"
        )


def _check_labels(images: ImageSource, classes: int, where: str) -> None:
    labels = np.asarray(images.labels)
    if labels.shape != (len(images),):
        raise PluginError(f"{where} must have one label per image ({len(images)},), got shape {labels.shape}")
    if labels.dtype.kind not in "iu":
        odd = next((one for one in labels.tolist() if type(one) is not int), None)
        raise PluginError(
            f"{where} must have whole numbers as labels, got {labels.dtype} (such as {odd!r}); convert them to int64"
        )
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise PluginError(
            f"{where} must have labels from 0 to {classes - 1}, got {int(outside[0])}; check the class list"
        )
