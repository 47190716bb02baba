# SPDX-License-Identifier: Apache-2.0
"""The labelled source images of a dataset, for methods whose cards ask for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from tta_bench.data.dataset import Dataset
from tta_bench.data.images.checked import split_checked
from tta_bench.data.images.decoded import DecodedOnce
from tta_bench.data.images.source import ImageSource
from tta_bench.data.stream import choose
from tta_bench.errors import BadInputError
from tta_bench.method import Method, Need
from tta_bench.models.source import SourceModel

SOURCE_DATA: tuple[Need, ...] = ("source_images", "source_labels", "source_replay")
"""The parts of the source split that a card may ask for."""


def source_data(method: Method) -> list[Need]:
    """Return what of the source split a method's card asks for, in order of the names."""
    return sorted(set(SOURCE_DATA) & method.card.needs)


def open_split(dataset: Dataset, name: str, method: Method) -> ImageSource:
    """Return the source images of a dataset for a method that asks for them.

    Args:
        dataset: The dataset.
        name: Of the method, for the message.
        method: The method.

    Raises:
        BadInputError: If the dataset provides none.
        PluginError: If its reader gives what no method can be given.
    """
    if dataset.source_split is None:
        raise BadInputError(
            f"method {name!r} needs source data ({', '.join(source_data(method))}), which dataset "
            f"{dataset.name!r} does not provide; leave the method out or choose a dataset that does, e.g. pocket-c"
        )
    return split_checked(dataset)


class SplitBatches:
    """Batches of source images in the order of a seed, as the source model takes them.

    Attributes:
        seconds: Time spent on loading so far; it is the harness's own and belongs to no clock of a method.

    Args:
        images: The source images.
        source: The source model.
        seed: Of the order.
        decoded: Where their inputs for this model are kept; None: a place of its own.
    """

    def __init__(
        self, images: ImageSource, source: SourceModel, seed: int, decoded: DecodedOnce | None = None
    ) -> None:
        self._images, self._source = images, source
        self._decoded = decoded or DecodedOnce(images, source.preprocess)
        self._order = choose(images, "full", seed)
        self._heard: Callable[[int], None] | None = None
        self._handed = 0
        self.seconds = 0.0

    @contextmanager
    def heard(self, handed: Callable[[int], None] | None) -> Iterator[None]:
        """Tell inside this context after each batch how many images were handed over since its beginning."""
        self._heard, self._handed = handed, 0
        try:
            yield
        finally:
            self._heard = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._order)

    def batch(self, index: int, size: int) -> tuple[Tensor, Tensor]:
        """Return images (M, C, H, W) in [0, 1] and labels (M,) int64 of batch ``index``, wrapping at the end."""
        start = time.perf_counter()
        rows = [self._order[row % len(self)] for row in range(index * size, (index + 1) * size)]
        positions = [int(row) for row in rows]
        images = self._decoded.load(positions)
        images = images.to(self._source.device).to(self._source.dtype) / 255
        labels = torch.as_tensor(
            self._images.labels[positions], dtype=torch.int64, device=self._source.device
        )
        self._handed += size
        if self._heard is not None:
            self._heard(self._handed)
        self.seconds += time.perf_counter() - start
        return images, labels
