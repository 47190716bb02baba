# SPDX-License-Identifier: Apache-2.0
"""What every layout answers: whether its files are there, what they are, and what is odd about them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tta_bench.data.facts import Shift
from tta_bench.data.locate import plain

if TYPE_CHECKING:
    from tta_bench.data.images import ImageSource
    from tta_bench.data.readers.reading import Reading

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))


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
    """What a look at the files of one shift finds, without decoding them.

    Attributes:
        images: How many images there are.
        classes: How many classes have at least one.
        missing: Class folders that should be there.
        unknown: Folders that are no class.
        stray: Files that are no image, or an image outside a class folder.
        first_hash: SHA-256 of the first image, 16 hexadecimal digits; empty without one.
    """

    images: int
    classes: int
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    stray: tuple[str, ...] = ()
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

    @abstractmethod
    def index(self, root: Path, shift: Shift) -> Index:
        """Return the images of a shift, which is present."""

    def open(self, root: Path, shift: Shift, reading: Reading) -> ImageSource:
        """Return the images of a shift, read from their files."""
        from tta_bench.data.picture_images import PictureImages
        from tta_bench.data.pictures import Paths

        found = spread(self.index(root, shift))
        return PictureImages(Paths(found.base, found.files), found.ids, found.labels, shift, reading)


def is_image(name: str) -> bool:
    """Return whether a file name is that of an image; hidden files, such as ``._x.jpg``, are none."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def spread(index: Index) -> Index:
    """Return the images in rounds over the classes: the first of every class, then the second, and so on.

    So the first N images of a dataset are spread over its classes, whatever the order of files on disk.
    """
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


def first_of(root: Path, candidates: Iterable[str]) -> Path | None:
    """Return the first of some paths below a folder that exists as a folder."""
    return next((root / path for path in candidates if (root / path).is_dir()), None)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of one file, 16 hexadecimal digits."""
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


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
