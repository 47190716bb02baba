# SPDX-License-Identifier: Apache-2.0
"""Encoded pictures by position, wherever they are kept; an unreadable one is an error that names it."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from PIL import Image

from tta_bench.errors import BadInputError

DECODING_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


class UnreadableImageError(BadInputError):
    """Report a picture that cannot be decoded."""

    def __init__(self, where: str, reason: str) -> None:
        self.where, self.reason = where, reason
        super().__init__(
            f"{where} cannot be decoded ({reason}); replace the file, or leave such images out with "
            "--on-bad-image skip"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Allow the error to cross from a worker process."""
        return type(self), (self.where, self.reason)


class Pictures(Protocol):
    """Encoded pictures by position."""

    def __len__(self) -> int:
        """Return how many there are."""

    def where(self, position: int) -> str:
        """Return what a message calls the picture."""

    def stamp(self, position: int) -> int:
        """Return a number that changes when the picture does, without reading it."""

    def read(self, position: int) -> Image.Image:
        """Return the picture, opened but possibly not yet decoded."""


class Paths:
    """Pictures in files.

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

    def stamp(self, position: int) -> int:
        """Return the size of the file in bytes, -1 if it is not there."""
        try:
            return os.stat(self.where(position)).st_size
        except FileNotFoundError:
            return -1

    def read(self, position: int) -> Image.Image:
        """Return the picture."""
        return Image.open(self.where(position))


class Member(NamedTuple):
    """One file inside an uncompressed tar archive: its archive, its name, and where its bytes are."""

    archive: str
    name: str
    offset: int
    size: int


class Members:
    """Pictures inside uncompressed tar archives, read in place."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members

    def __len__(self) -> int:
        """Return how many pictures there are."""
        return len(self.members)

    def where(self, position: int) -> str:
        """Return archive and name."""
        return f"{self.members[position].archive}:{self.members[position].name}"

    def stamp(self, position: int) -> int:
        """Return the size of the picture in bytes."""
        return self.members[position].size

    def read(self, position: int) -> Image.Image:
        """Return the picture."""
        member = self.members[position]
        with open(member.archive, "rb") as file:
            file.seek(member.offset)
            return Image.open(io.BytesIO(file.read(member.size)))


class Rows:
    """Pictures in a column of a Hugging Face dataset, which is opened without decoding.

    Args:
        name: What messages call the dataset.
        rows: The dataset; ``rows[i][column]`` is ``{"bytes": ..., "path": ...}``.
        column: Name of the picture column.
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

    def stamp(self, position: int) -> int:
        """Return 0: the dataset's own fingerprint stands for all rows."""
        return 0

    def read(self, position: int) -> Image.Image:
        """Return the picture."""
        cell = self.rows[self.order[position]][self.column]
        return Image.open(io.BytesIO(cell["bytes"]) if cell.get("bytes") else cell["path"])


def decode(pictures: Pictures, position: int, border: int = 0) -> Image.Image:
    """Return one picture in RGB, fully decoded, without a border of so many pixels.

    Raises:
        UnreadableImageError: If it is missing, truncated or no picture.
    """
    try:
        with pictures.read(position) as picture:
            image = picture.convert("RGB")
    except DECODING_ERRORS as error:
        reason = f"{type(error).__name__}: {error}"
        raise UnreadableImageError(pictures.where(position), reason) from error
    if not border:
        return image
    return image.crop((border, border, image.width - border, image.height - border))
