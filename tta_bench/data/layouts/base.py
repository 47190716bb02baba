# SPDX-License-Identifier: Apache-2.0
"""The interface of every layout: whether its files are there, what they are, and what is odd about them."""

from __future__ import annotations

import codecs
import csv
import io
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

from tta_bench.data.dataset import Shift
from tta_bench.data.layouts.locate import plain
from tta_bench.data.layouts.walk import without_suffix
from tta_bench.errors import BadInputError

if TYPE_CHECKING:
    from tta_bench.data.images.source import ImageSource
    from tta_bench.data.layouts.reading import Reading


class Index(NamedTuple):
    """The images of one shift.

    Attributes:
        base: Folder that the files are relative to.
        files: Paths relative to it.
        ids: One id per image, the same under every corruption of the dataset.
        labels: Class of each image.
    """

    base: Path
    files: list[str]
    ids: list[str]
    labels: list[int]


class Survey(NamedTuple):
    """A survey of the files of one shift, without decoding them.

    Attributes:
        images: How many images there are.
        classes: How many classes have at least one.
        missing: Class folders that should be there.
        unknown: Folders that are no class.
        stray: Files that are no image, or an image outside a class folder.
        broken: Links to images that lead nowhere.
        first_hash: SHA-256 of the first image, 16 hexadecimal digits; empty without one.
    """

    images: int
    classes: int
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    stray: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    first_hash: str = ""


class Layout(ABC):
    """Where the files of a dataset are below its folder, and how labels are read from them."""

    @abstractmethod
    def expects(self, shift: Shift) -> str:
        """Return the path below the dataset's folder that a shift needs, for sentences."""

    @abstractmethod
    def present(self, root: Path, shift: Shift) -> bool:
        """Return whether that path is there."""

    @abstractmethod
    def survey(self, root: Path, shift: Shift) -> Survey:
        """Return what is there, without decoding it."""

    @abstractmethod
    def open(self, root: Path, shift: Shift, reading: Reading) -> ImageSource:
        """Return the images of a shift, which is present."""


class FileLayout(Layout):
    """A layout of one file per image."""

    classes: tuple[str, ...]

    @abstractmethod
    def index(self, root: Path, shift: Shift) -> Index:
        """Return the images of a shift, which is present."""

    def open(self, root: Path, shift: Shift, reading: Reading) -> ImageSource:
        """Return the images of a shift, read from their files."""
        from tta_bench.data.images.encoded import EncodedImages
        from tta_bench.data.images.files import Paths

        index = self.index(root, shift)
        found = spread(index._replace(ids=image_ids(index.ids)), len(self.classes))
        return EncodedImages(Paths(found.base, found.files), found.ids, found.labels, shift, reading)


def spread(index: Index, classes: int) -> Index:
    """Return the images in rounds over the classes: the first of every class, then the second, and so on.

    So the first N images of a dataset are spread over its classes, whatever the order of files on disk.

    Raises:
        BadInputError: If a label is none of 0 to ``classes - 1``.
    """
    for image, label in zip(index.ids, index.labels, strict=True):
        if not _is_class(label, classes):
            raise BadInputError(
                f"the image {image!r} must have a whole number from 0 to {classes - 1} as its label, got {label!r}; "
                "choose data with labels, as those of a test split may be kept secret"
            )
    seen: dict[int, int] = {}
    rounds = []
    for label in index.labels:
        seen[label] = seen.get(label, 0) + 1
        rounds.append(seen[label])
    order = sorted(range(len(rounds)), key=lambda i: (rounds[i], index.labels[i]))
    return Index(
        index.base,
        [index.files[i] for i in order],
        [index.ids[i] for i in order],
        [index.labels[i] for i in order],
    )


def _is_class(label: object, classes: int) -> bool:
    if isinstance(label, bool) or not isinstance(label, Integral):
        return False
    return 0 <= int(label) < classes


def image_ids(paths: Sequence[str]) -> list[str]:
    """Return the ids of images by their paths: without the suffix, unless two images differ in nothing else.

    So a corrupted copy has the id of its original, in whatever format it was saved.
    """
    bare = [without_suffix(path) for path in paths]
    seen = Counter(bare)
    return [path if seen[one] > 1 else one for path, one in zip(paths, bare, strict=True)]


def first_of(root: Path, candidates: Iterable[str]) -> Path | None:
    """Return the first of some paths below a folder that exists as a folder."""
    return next((root / path for path in candidates if (root / path).is_dir()), None)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of one file, 16 hexadecimal digits."""
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte order mark; the mark is no part of the text.

    Raises:
        BadInputError: If it cannot be read or has another encoding.
    """
    try:
        return decoded(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} must be a text file in UTF-8, but {error}; fetch it again") from error


def decoded(content: bytes) -> str:
    """Return bytes as text: UTF-8, or UTF-16 where they begin with its byte order mark, without the mark.

    Raises:
        UnicodeDecodeError: If they have another encoding.
    """
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig").replace("\r\n", "\n")


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file that has these columns; what a short row leaves out is empty.

    Raises:
        BadInputError: If it is none or has no such column.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), restval="")
        rows = list(reader)
    except csv.Error as error:
        raise BadInputError(f"{path} must be a CSV file, but {error}; fetch it again") from error
    for column in columns:
        if column not in (reader.fieldnames or ()):
            raise BadInputError(f"{path} must have the column {column!r}; fetch it again")
    return rows


def inside(file: str, path: Path) -> str:
    """Return a path that a list names and that stays in the dataset's folder.

    Raises:
        BadInputError: If it leads out.
    """
    if PurePath(file).is_absolute() or ".." in PurePath(file).parts:
        raise BadInputError(
            f"{path} must name images below the dataset's folder, got {file!r}, which leads out of it; use the "
            "official list"
        )
    return file


def survey_of(index: Index) -> Survey:
    """Return the survey of images that are listed somewhere, and not found by looking into folders."""
    absent = [file for file in index.files if not (index.base / file).is_file()]
    there = index.files[0] if index.files and index.files[0] not in absent else ""
    return Survey(
        len(index.files) - len(absent),
        len(set(index.labels)),
        tuple(absent),
        first_hash=file_hash(index.base / there) if there else "",
    )


def distinct(names: Sequence[str]) -> bool:
    """Return whether names differ even without case and separators."""
    return len({plain(name) for name in names}) == len(names)
