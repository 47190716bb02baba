# SPDX-License-Identifier: Apache-2.0
"""Grey images of the MNIST family in NumPy files, and how they become 32x32 images of three channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tta_bench.data.dataset import Shift
from tta_bench.data.layouts.arrays import ArrayLayout, Arrays, array_digest, load_array, load_labels
from tta_bench.errors import BadInputError

if TYPE_CHECKING:
    import numpy as np

SIDE, BORDER = 28, 2


def widened(grey: np.ndarray, path: Path) -> np.ndarray:
    """Return grey images as (n, 32, 32, 3): two pixels of zeros on each side, the value in every channel.

    The channels share memory.

    Args:
        grey: (n, 28, 28) or (n, 28, 28, 1) uint8.
        path: The file that they are from, for the sentence.

    Raises:
        BadInputError: If they have another shape or type.
    """
    import numpy as np

    if grey.shape[1:] not in ((SIDE, SIDE), (SIDE, SIDE, 1)) or grey.dtype != np.uint8:
        raise BadInputError(
            f"{path} must hold grey uint8 images (n, {SIDE}, {SIDE}), got {grey.dtype} {grey.shape}; fetch it again"
        )
    plane = np.pad(grey.reshape(-1, SIDE, SIDE), ((0, 0), (BORDER, BORDER), (BORDER, BORDER)))
    return np.broadcast_to(plane[..., None], (*plane.shape, 3))


@dataclass(frozen=True)
class GreyArrays(ArrayLayout):
    """Grey images and their labels in two NumPy files: MNIST-C's folders, or FMNIST-C's one pair.

    Attributes:
        classes: Class names in label order.
        images: Path of the images below the dataset's folder; ``{corruption}`` stands for the corruption.
        labels: The same for the labels.
        bases: Where these paths may begin below the dataset's folder.
    """

    classes: tuple[str, ...]
    images: str
    labels: str
    bases: tuple[str, ...] = (".",)

    def expects(self, shift: Shift) -> str:
        """Return the path of the image file."""
        return self.images.format(corruption=shift.corruption)

    def present(self, root: Path, shift: Shift) -> bool:
        """Return whether both files are there."""
        return self._base(root, shift) is not None

    def read(self, root: Path, shift: Shift) -> Arrays:
        """Return all images, widened to 32x32 and three channels."""
        base = self._base(root, shift)
        assert base is not None
        path = base / self.expects(shift)
        grey, labels = load_array(path), load_labels(base / self.labels.format(corruption=shift.corruption))
        return Arrays(widened(grey, path), labels, array_digest(grey, labels))

    def _base(self, root: Path, shift: Shift) -> Path | None:
        names = (self.expects(shift), self.labels.format(corruption=shift.corruption))
        bases = (root / base for base in self.bases)
        return next((base for base in bases if all((base / name).is_file() for name in names)), None)
