# SPDX-License-Identifier: Apache-2.0
"""Read encoded images as model inputs: decode, resize and crop, corrupt, batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tta_bench.data.dataset import Shift
from tta_bench.data.images.bad import unreadable
from tta_bench.data.images.files import EncodedFiles, decode
from tta_bench.data.images.generated import corrupted, generation_facts
from tta_bench.data.images.prefetch import prefetch
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.layouts.reading import FILE_WORKERS, Generated, Reading
from tta_bench.data.layouts.subsets import named_subset, origin_of
from tta_bench.errors import BadInputError
from tta_bench.spec import digest


class EncodedImages:
    """The images of one shift.

    The first N of them are spread over the classes, one of each class in every round; `arrangement` says so.

    Args:
        images: Where they are.
        ids: One id per image.
        labels: Class of each image.
        shift: Which distribution this is.
        reading: How they are read.
    """

    arrangement = "rounds over the classes"

    def __init__(
        self,
        images: EncodedFiles,
        ids: Sequence[str],
        labels: Sequence[int],
        shift: Shift,
        reading: Reading,
    ) -> None:
        self.images, self.ids, self.shift, self.reading = images, ids, shift, reading
        self.labels: np.ndarray = np.asarray(labels, dtype=np.int64)
        self.origin = origin_of(len(ids), reading)
        self.bad_images: list[str] = []

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.ids)

    @cached_property
    def data_hash(self) -> str:
        """Changes whenever any pixel or label may have changed; all files are read for it once."""
        files = digest([list(self.ids), self.labels.tolist(), self.images.contents()], 16)
        return digest(
            [files, self.reading.border, self.reading.cropped, generation_facts(self.reading.generated)], 16
        )

    @property
    def workers(self) -> int:
        """Number of processes that decode."""
        return FILE_WORKERS if self.reading.workers is None else self.reading.workers

    def load(self, positions: Sequence[int], preprocess: Preprocess) -> Tensor:
        """Return the model inputs (N, 3, H, W) uint8 of the images at these positions.

        Raises:
            UnreadableImageError: If one cannot be decoded.
            BadInputError: If one should be a crop already and is not square.
        """
        images = [decode(self.images, position, self.reading.border) for position in positions]
        generated = self.reading.generated
        if generated is None:
            if not self.reading.cropped:
                return torch.stack([preprocess(image) for image in images])
            return torch.cat([preprocess.batch(self._crop(image)) for image in images])
        if generated.first is None:
            return self._corrupted(torch.stack([preprocess(image) for image in images]), generated, positions)
        side, crop = generated.first
        first = Preprocess((crop, crop), side)
        crops = torch.stack([first(image) for image in images])
        return preprocess.batch(self._corrupted(crops, generated, positions))

    def batches(self, chunks: Sequence[Sequence[int]], preprocess: Preprocess) -> Iterator[Tensor]:
        """Yield ``load(chunk, preprocess)`` of every chunk in order, made ahead by worker processes."""
        yield from prefetch(_Load(self, preprocess), chunks, self.workers)

    def subset(self, name: str) -> np.ndarray | None:
        """Return the positions of a subset that the dataset names, None if the name is not its own.

        Raises:
            BadInputError: If images are missing and the run does not allow it.
        """
        return named_subset(name, self.ids, self.shift, self.reading)

    def usable(self, positions: np.ndarray) -> np.ndarray:
        """Return the positions whose images can be decoded, where the run leaves out those that cannot.

        With ``--on-bad-image skip`` every image is decoded once before the run, so that order, batches and
        hashes are those of the images that are used; which ones were left out is kept in `bad_images`.
        """
        if self.reading.bad_image == "stop":
            return positions
        bad = unreadable(self.images, positions, self.workers)
        self.bad_images = sorted({*self.bad_images, *(self.ids[position] for position in bad)})
        return positions[~np.isin(positions, bad)]

    def _crop(self, image: Image.Image) -> Tensor:
        if image.width != image.height:
            raise BadInputError(
                f"the images of {self.shift.dataset} must be square crops, got one of {image.width}x{image.height} "
                f"in {self.shift}; fetch them again, or crop them with --resize and --crop of `tta-bench data corrupt` "
                "(256 and 224 for ImageNet)"
            )
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]

    def _corrupted(self, images: Tensor, generated: Generated, positions: Sequence[int]) -> Tensor:
        return corrupted(images, [self.ids[position] for position in positions], generated)


class _Load:
    """``images.load`` with its preprocessing, as an object that worker processes can be given."""

    def __init__(self, images: EncodedImages, preprocess: Preprocess) -> None:
        self.images, self.preprocess = images, preprocess

    def __call__(self, positions: Sequence[int]) -> Tensor:
        return self.images.load(positions, self.preprocess)
