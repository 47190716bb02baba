# SPDX-License-Identifier: Apache-2.0
"""Grey 28x28 images in the idx files of MNIST and Fashion-MNIST, packed with gzip or not."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from tta_bench.data.dataset import Shift
from tta_bench.data.layouts.arrays import ArrayLayout, Arrays, array_digest
from tta_bench.data.layouts.grey import widened
from tta_bench.errors import BadInputError
from tta_bench.spec.whole import write_whole

if TYPE_CHECKING:
    import numpy as np

_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08


@dataclass(frozen=True)
class IdxPair(ArrayLayout):
    """Images and labels in two idx files: ``<split>-images-idx3-ubyte`` and ``<split>-labels-idx1-ubyte``.

    Attributes:
        classes: Class names in label order.
        split: ``"t10k"`` or ``"train"``.
        bases: Where the files may lie below the dataset's folder; torchvision keeps them in ``raw``.
    """

    classes: tuple[str, ...]
    split: str = "t10k"
    bases: tuple[str, ...] = (".", "raw")

    def expects(self, shift: Shift) -> str:
        """Return the name of the image file."""
        return f"{self.split}-images-idx3-ubyte.gz"

    def present(self, root: Path, shift: Shift) -> bool:
        """Return whether both files are there."""
        return self._pair(root) is not None

    def read(self, root: Path, shift: Shift) -> Arrays:
        """Return all images, widened to 32x32 and three channels."""
        pair = self._pair(root)
        assert pair is not None
        grey, labels = read_idx(pair[0], 3), read_idx(pair[1], 1)
        return Arrays(widened(grey, pair[0]), labels, array_digest(grey, labels))

    def _pair(self, root: Path) -> tuple[Path, Path] | None:
        names = (f"{self.split}-images-idx3-ubyte", f"{self.split}-labels-idx1-ubyte")
        for base in self.bases:
            images, labels = (_either(root / base / name) for name in names)
            if images is not None and labels is not None:
                return images, labels
        return None


def _either(path: Path) -> Path | None:
    """Return a file, or the same file packed with gzip; None if neither is there."""
    return next((one for one in (path, path.with_name(f"{path.name}.gz")) if one.is_file()), None)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Return the unsigned bytes of an idx file as an array; whether it is packed is seen from its content.

    Args:
        path: The file.
        dimensions: How many dimensions it must have: 3 for images, 1 for labels.

    Raises:
        BadInputError: If it is damaged, or another kind of file.
    """
    import numpy as np

    content = _content(path)
    if content[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise BadInputError(
            f"{path} must be an idx file of unsigned bytes in {dimensions} dimensions, got one that begins with "
            f"{content[:4].hex() or 'nothing'}; fetch it again"
        )
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise BadInputError(
            f"{path} must name its {dimensions} sizes, got {len(content)} bytes; fetch it again"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != prod(shape):
        raise BadInputError(
            f"{path} must hold {prod(shape)} values for {shape}, got {len(content) - start}; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write an array of unsigned bytes as an idx file packed with gzip; the same array gives the same bytes."""
    head = bytes((0, 0, _UNSIGNED_BYTE, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    write_whole(path, gzip.compress(head + values.tobytes(), 9, mtime=0))


def _content(path: Path) -> bytes:
    raw = path.read_bytes()
    if raw[:2] != _GZIP:
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError(f"{path} must be a whole gzip file, but {error}; fetch it again") from error
