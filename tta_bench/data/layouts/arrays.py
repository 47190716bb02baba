# SPDX-License-Identifier: Apache-2.0
"""Images that are held in arrays: the NumPy files of CIFAR-C and CIFAR-10.1 and the pickles of CIFAR."""

from __future__ import annotations

import pickle
import struct
import tokenize
import zipfile
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tta_bench.data.dataset import Shift
from tta_bench.data.layouts.base import Layout, Survey, file_hash
from tta_bench.errors import BadInputError

if TYPE_CHECKING:
    import numpy as np

    from tta_bench.data.images.source import ImageSource
    from tta_bench.data.layouts.reading import Reading


SEVERITIES = 5
MALFORMED = (
    pickle.UnpicklingError, EOFError, OSError, ValueError, ArithmeticError, AttributeError, ImportError, LookupError,
    TypeError, SyntaxError, MemoryError, RecursionError, struct.error, tokenize.TokenError, zipfile.BadZipFile,
)  # fmt: skip
"""Exceptions of NumPy and pickle on damaged or hostile files."""


class Arrays(NamedTuple):
    """Images (n, 32, 32, 3) uint8, possibly mapped from a file, their labels (n,), and the files' hash."""

    images: np.ndarray
    labels: np.ndarray
    digest: str


class ArrayLayout(Layout):
    """A layout of few files that hold many images."""

    classes: tuple[str, ...]

    @abstractmethod
    def read(self, root: Path, shift: Shift) -> Arrays:
        """Return the images of a shift, which is present."""

    def open(self, root: Path, shift: Shift, reading: Reading) -> ImageSource:
        """Return the images of a shift."""
        from tta_bench.data.images.arrays import ArrayImages

        found = self.checked(root, shift)
        return ArrayImages(found.images, found.labels, found.digest, shift, reading)

    def checked(self, root: Path, shift: Shift) -> Arrays:
        """Return the images of a shift after a look at their shape and labels.

        Raises:
            BadInputError: If the arrays are not images with one label each.
        """
        found = self.read(root, shift)
        shape = found.images.shape
        if len(shape) != 4 or shape[3] != 3 or str(found.images.dtype) != "uint8":
            raise BadInputError(
                f"{root / self.expects(shift)} must hold uint8 images (n, height, width, 3), got "
                f"{found.images.dtype} {shape}; fetch the file again"
            )
        if len(found.labels) != len(found.images):
            raise BadInputError(
                f"{root / self.expects(shift)} has {len(found.images)} images but {len(found.labels)} labels; "
                "fetch the files again"
            )
        if len(found.labels) and not 0 <= int(found.labels.min()) <= int(found.labels.max()) < len(
            self.classes
        ):
            raise BadInputError(
                f"the labels of {root / self.expects(shift)} must be 0 to {len(self.classes) - 1}, got "
                f"{int(found.labels.min())} to {int(found.labels.max())}; this is another dataset's label file"
            )
        return found

    def survey(self, root: Path, shift: Shift) -> Survey:
        """Return how many images and classes the arrays hold."""
        import hashlib

        found = self.checked(root, shift)
        classes = {int(label) for label in found.labels}
        missing = tuple(name for label, name in enumerate(self.classes) if label not in classes)
        first = hashlib.sha256(found.images[:1].tobytes()).hexdigest()[:16] if len(found.images) else ""
        return Survey(len(found.images), len(classes), missing, first_hash=first)


@dataclass(frozen=True)
class SeverityBlocks(ArrayLayout):
    """CIFAR-10-C: ``<corruption>.npy`` with five blocks of rows, one per severity, and ``labels.npy``.

    Attributes:
        classes: Class names in label order.
        rows: Images per severity in the published files.
    """

    classes: tuple[str, ...]
    rows: int = 10000

    def expects(self, shift: Shift) -> str:
        """Return the name of the corruption's file."""
        return f"{shift.corruption}.npy"

    def present(self, root: Path, shift: Shift) -> bool:
        """Return whether images and labels are there."""
        return (root / self.expects(shift)).is_file() and (root / "labels.npy").is_file()

    def read(self, root: Path, shift: Shift) -> Arrays:
        """Return the block of the severity; only its pages are read from disk."""
        path = root / self.expects(shift)
        images, labels = load_array(path), load_labels(root / "labels.npy")
        size, rest = divmod(len(images), SEVERITIES)
        if rest or len(images) >= self.rows != size:
            raise BadInputError(
                f"{path} must hold {SEVERITIES} blocks of {self.rows:,} images, severities 1 to {SEVERITIES} in this "
                f"order, got {len(images):,} rows; fetch the published file"
            )
        if len(labels) == len(images) and (labels.reshape(SEVERITIES, size) != labels[:size]).any():
            raise BadInputError(
                f"{root / 'labels.npy'} must repeat the labels of one severity {SEVERITIES} times, and does not, so "
                f"{path} holds other images than five severities of the same; fetch the published files"
            )
        rows = slice((shift.severity - 1) * size, shift.severity * size)
        chosen = labels[rows] if len(labels) == len(images) else labels
        return Arrays(images[rows], chosen, array_digest(images[rows], chosen))


@dataclass(frozen=True)
class ArrayPair(ArrayLayout):
    """CIFAR-10.1: ``cifar10.1_<version>_data.npy`` and ``cifar10.1_<version>_labels.npy``."""

    classes: tuple[str, ...]
    stem: str = "cifar10.1_{corruption}"
    bases: tuple[str, ...] = (".", "datasets")

    def expects(self, shift: Shift) -> str:
        """Return the name of the image file."""
        return f"{self.stem.format(corruption=shift.corruption)}_data.npy"

    def present(self, root: Path, shift: Shift) -> bool:
        """Return whether both files are there."""
        return self._base(root, shift) is not None

    def read(self, root: Path, shift: Shift) -> Arrays:
        """Return all images."""
        base = self._base(root, shift)
        assert base is not None
        name = self.expects(shift)
        images, labels = load_array(base / name), load_labels(base / name.replace("_data", "_labels"))
        return Arrays(images, labels, array_digest(images, labels))

    def _base(self, root: Path, shift: Shift) -> Path | None:
        name = self.expects(shift)
        names = (name, name.replace("_data", "_labels"))
        bases = (root / base for base in self.bases)
        return next((base for base in bases if all((base / n).is_file() for n in names)), None)


@dataclass(frozen=True)
class CifarPickles(ArrayLayout):
    """The Python version of CIFAR: pickled batches with ``data`` (n, 3072) in planes and a label key.

    Attributes:
        classes: Class names in label order.
        files: The batches of the split.
        key: Name of the labels in a batch.
    """

    classes: tuple[str, ...]
    files: tuple[str, ...]
    key: str

    def expects(self, shift: Shift) -> str:
        """Return the first batch's name."""
        return self.files[0]

    def present(self, root: Path, shift: Shift) -> bool:
        """Return whether every batch is there."""
        return all((root / name).is_file() for name in self.files)

    def read(self, root: Path, shift: Shift) -> Arrays:
        """Return the images of all batches, in order."""
        import numpy as np

        batches = [_unpickle(root / name) for name in self.files]
        for name, batch in zip(self.files, batches, strict=True):
            if "data" not in batch or self.key not in batch:
                raise BadInputError(
                    f"{root / name} must hold 'data' and {self.key!r}; fetch the archive again"
                )
        try:
            planes = np.concatenate([np.asarray(batch["data"]) for batch in batches])
            images = planes.reshape(len(planes), 3, 32, 32).transpose(0, 2, 3, 1)
            labels = np.concatenate([np.asarray(batch[self.key]) for batch in batches])
        except (ValueError, TypeError, MemoryError) as error:
            raise BadInputError(
                f"{root / self.files[0]} must hold 'data' (n, 3072) and {self.key!r} (n,), but {error}; fetch the "
                "archive again"
            ) from error
        digest = "".join(file_hash(root / name) for name in self.files)
        return Arrays(images, _whole(labels, root / self.files[0]), digest)


def load_array(path: Path) -> np.ndarray:
    """Return the array of a NumPy file, mapped and not read.

    Raises:
        BadInputError: If it is damaged, or holds no rows.
    """
    import numpy as np

    try:
        arrays: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except MALFORMED as error:
        raise BadInputError(
            f"{path} must be a NumPy file, but {error or type(error).__name__}; fetch it again"
        ) from error
    if not isinstance(arrays, np.ndarray) or not arrays.ndim:
        raise BadInputError(f"{path} must be a NumPy array of several rows, got one value; fetch it again")
    return arrays


def load_labels(path: Path) -> np.ndarray:
    """Return the labels (n,) of a NumPy file.

    Raises:
        BadInputError: If they are no whole numbers.
    """
    return _whole(load_array(path), path)


def _whole(labels: np.ndarray, path: Path) -> np.ndarray:
    """Return labels that are whole numbers (n,).

    Raises:
        BadInputError: If they are not.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise BadInputError(
            f"the labels in {path} must be whole numbers (n,), got {labels.dtype} {labels.shape}; fetch it again"
        )
    return labels


def array_digest(images: np.ndarray, labels: np.ndarray) -> str:
    """Return a hash of every byte of images and labels; a block of CIFAR-C takes about 0.1 s."""
    import hashlib

    import numpy as np

    whole = hashlib.sha256(str(images.shape).encode())
    whole.update(np.ascontiguousarray(labels).astype("<i8").tobytes())
    whole.update(np.ascontiguousarray(images).data)
    return whole.hexdigest()


class _OnlyArrays(pickle.Unpickler):
    """A reader that rebuilds arrays and plain containers, and nothing that a hostile file could run."""

    ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed name; refuse every other."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image batch needs")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _unpickle(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        try:
            content = _OnlyArrays(file, encoding="latin1").load()
        except MALFORMED as error:
            raise BadInputError(
                f"{path} must be a pickled CIFAR batch, but {error or type(error).__name__}; fetch it again"
            ) from error
    if not isinstance(content, dict):
        raise BadInputError(
            f"{path} must be a pickled CIFAR batch, got {type(content).__name__}; fetch it again"
        )
    return content
