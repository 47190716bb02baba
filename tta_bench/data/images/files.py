# SPDX-License-Identifier: Apache-2.0
"""Encoded images by position, wherever they are kept; an unreadable one is an error that names it."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from tta_bench.data.images.contents import file_sums, state
from tta_bench.errors import BadInputError

DECODING_ERRORS = (
    OSError, RuntimeError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError,
)  # fmt: skip
SIXTEEN_BITS = ("PNG", "PPM")  # formats whose grey levels of mode I go to 65535


class UnreadableImageError(BadInputError):
    """Report an image that cannot be decoded.

    Args:
        where: What a message calls the image.
        reason: Why it cannot be decoded.
        passing: Whether the system refused to read it, so that it may be whole.
    """

    def __init__(self, where: str, reason: str, passing: bool = False) -> None:
        self.where, self.reason, self.passing = where, reason, passing
        super().__init__(
            f"{where} cannot be decoded ({reason}); replace the file, or leave such images out with "
            'bad_image="skip"',
            options=("bad_image",),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Allow the error to cross from a worker process."""
        return type(self), (self.where, self.reason, self.passing)


class EncodedFiles(Protocol):
    """Encoded images by position."""

    def __len__(self) -> int:
        """Return how many there are."""

    def where(self, position: int) -> str:
        """Return what a message calls the image."""

    def contents(self) -> list[str]:
        """Return hashes that change when any image does, and are the same on every machine."""

    def version(self, position: int) -> list[Any]:
        """Return what changes on this machine when the image does, without reading it."""

    def read(self, position: int) -> Image.Image:
        """Return the image, opened but possibly not yet decoded."""


class Paths:
    """Images in files.

    Args:
        base: Folder that the files are relative to.
        files: Paths relative to it.
    """

    def __init__(self, base: Path, files: Sequence[str]) -> None:
        self.base, self.files = str(base), files

    def __len__(self) -> int:
        """Return how many files there are."""
        return len(self.files)

    def where(self, position: int) -> str:
        """Return the path."""
        return os.path.join(self.base, self.files[position])

    def contents(self) -> list[str]:
        """Return the hash of every file."""
        return file_sums([self.where(position) for position in range(len(self))])

    def version(self, position: int) -> list[Any]:
        """Return the file's absolute path and state."""
        path = os.path.abspath(self.where(position))
        return [path, *state(path)]

    def read(self, position: int) -> Image.Image:
        """Return the image."""
        return Image.open(self.where(position))


class Member(NamedTuple):
    """One file inside an uncompressed tar archive: its archive, its name, and where its bytes are."""

    archive: str
    name: str
    offset: int
    size: int


class Members:
    """Images inside uncompressed tar archives, read in place."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.members)

    def where(self, position: int) -> str:
        """Return archive and name."""
        return f"{self.members[position].archive}:{self.members[position].name}"

    def contents(self) -> list[str]:
        """Return the hash of every archive, and what each image is called in it."""
        archives = dict.fromkeys(member.archive for member in self.members)
        return [*file_sums(list(archives)), *(member.name for member in self.members)]

    def version(self, position: int) -> list[Any]:
        """Return the archive's absolute path and state, and where the image is in it."""
        member = self.members[position]
        path = os.path.abspath(member.archive)
        return [path, *state(path), member.offset]

    def read(self, position: int) -> Image.Image:
        """Return the image."""
        member = self.members[position]
        with open(member.archive, "rb") as file:
            file.seek(member.offset)
            return Image.open(io.BytesIO(file.read(member.size)))


class Rows:
    """Images in a column of a Hugging Face dataset, which is opened without decoding.

    Args:
        name: What messages call the dataset.
        rows: The dataset; ``rows[i][column]`` is ``{"bytes": ..., "path": ...}``.
        column: Name of the image column.
        order: Which row each position stands for.
    """

    def __init__(self, name: str, rows: Any, column: str, order: Sequence[int]) -> None:
        self.name, self.rows, self.column, self.order = name, rows, column, order

    def __len__(self) -> int:
        """Return how many rows are used."""
        return len(self.order)

    def where(self, position: int) -> str:
        """Return dataset and row."""
        return f"row {self.order[position]} of {self.name}"

    def contents(self) -> list[str]:
        """Return the dataset's own fingerprint, which stands for all rows."""
        return [str(getattr(self.rows, "_fingerprint", ""))]

    def version(self, position: int) -> list[Any]:
        """Return dataset, fingerprint and row."""
        return [self.name, *self.contents(), self.order[position]]

    def read(self, position: int) -> Image.Image:
        """Return the image."""
        cell = self.rows[self.order[position]][self.column]
        return Image.open(io.BytesIO(cell["bytes"]) if cell.get("bytes") else cell["path"])


def decode(images: EncodedFiles, position: int, border: int = 0) -> Image.Image:
    """Return one image in RGB, fully decoded, without a border of so many pixels.

    Raises:
        UnreadableImageError: If it is missing, truncated, no image, or one whose white is not known.
    """
    try:
        with images.read(position) as image:
            image = _rgb(image)
    except DECODING_ERRORS as error:
        reason = f"{type(error).__name__}: {error}"
        passing = isinstance(error, OSError) and error.errno is not None
        raise UnreadableImageError(images.where(position), reason, passing) from error
    if not border:
        return image
    if min(image.size) <= 2 * border:
        size = f"{image.width}x{image.height}"
        raise UnreadableImageError(
            images.where(position), f"it is {size} and has a border of {border} pixels on every side"
        )
    return image.crop((border, border, image.width - border, image.height - border))


def _rgb(image: Image.Image) -> Image.Image:
    """Return an image with 8 bits per channel; 16 bits of grey are scaled, so that white stays white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BITS):
        levels = np.asarray(image).astype(np.int64)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("F", "I"):
        raise ValueError(f"its levels of mode {image.mode} have no known white; save it with 8 or 16 bits")
    return image.convert("RGB")
