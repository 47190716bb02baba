# SPDX-License-Identifier: Apache-2.0
"""Read images that are held in arrays as model inputs, corrupted on the way where that is asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tta_bench.data.dataset import Shift
from tta_bench.data.images.generated import corrupted, generation_facts
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.layouts.reading import Reading
from tta_bench.data.layouts.subsets import named_subset, origin_of
from tta_bench.spec import digest


class ArrayImages:
    """The images of one shift in an array (n, H, W, 3) uint8, possibly mapped from a file.

    The first N of them are the first rows of the file, as RobustBench takes them; `arrangement` says so.

    Args:
        images: The array.
        labels: Class of each image.
        content: Hash of both.
        shift: Which distribution this is.
        reading: How they are read.
    """

    arrangement = "rows of the file"

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, content: str, shift: Shift, reading: Reading
    ) -> None:
        self._images, self._shift, self._reading = images, shift, reading
        self._generated = reading.generated
        self.ids: Sequence[str] = [f"{position:05d}" for position in range(len(images))]
        self.labels: np.ndarray = np.array(labels, dtype=np.int64)
        self.origin = origin_of(len(images), reading)
        facts = [content, shift.corruption, shift.severity]
        if reading.generated is not None:
            facts.append(generation_facts(reading.generated))
        self.data_hash = digest(facts, 16)

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.ids)

    def load(self, positions: Sequence[int], preprocess: Preprocess) -> Tensor:
        """Return the model inputs (N, 3, H, W) uint8 of the images at these positions."""
        chosen = np.ascontiguousarray(self._images[list(positions)].transpose(0, 3, 1, 2))
        images = torch.from_numpy(chosen)
        if self._generated is not None:
            images = corrupted(images, [self.ids[position] for position in positions], self._generated)
        return preprocess.batch(images)

    def subset(self, name: str) -> np.ndarray | None:
        """Return the positions of a subset that the dataset names, None if the name is not its own.

        Raises:
            BadInputError: If images are missing and the run does not allow it.
        """
        return named_subset(name, self.ids, self._shift, self._reading)
