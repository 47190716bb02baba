# SPDX-License-Identifier: Apache-2.0
"""The interface of every reader: images by position, with stable ids and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from tta_bench.data.images.preprocess import Preprocess


class ImageSource(Protocol):
    """The images of one shift, by random access.

    A reader may also have ``batches(chunks, preprocess)``, which yields ``load`` of every chunk made ahead;
    ``subset(name)``, the positions of a subset that the dataset lists itself, or None; ``usable(positions)``,
    those whose images can be decoded; ``bad_images``, the ids that were left out; ``origin``, where its
    corruption comes from and whether images are missing; and ``arrangement``, what ``first-N`` takes.

    Attributes:
        ids: One id per image, the same under every shift of the dataset.
        labels: (n,) int64, indexing the dataset's class names.
    """

    ids: Sequence[str]
    labels: np.ndarray

    @property
    def data_hash(self) -> str:
        """Changes whenever any pixel or label may have changed."""

    def __len__(self) -> int:
        """Return how many images there are."""

    def load(self, positions: Sequence[int], preprocess: Preprocess) -> Tensor:
        """Return the model inputs (N, 3, H, W) uint8 of images, resized and cropped as the model expects."""
