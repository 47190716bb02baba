# SPDX-License-Identifier: Apache-2.0
"""Look into folders: images and folders by name, links followed, and a sentence for what cannot be followed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from tta_bench.errors import BadInputError

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))


UNREAD = frozenset((
    ".apng", ".arw", ".avif", ".cr2", ".cr3", ".dds", ".dng", ".eps", ".exr", ".fits", ".gif", ".hdr", ".heic", ".heif",
    ".hif", ".icns", ".ico", ".j2c", ".j2k", ".jfif", ".jif", ".jp2", ".jpe", ".jpf", ".jpx", ".jxl", ".jxr", ".mpo",
    ".nef", ".orf", ".pam", ".pbm", ".pcx", ".pef", ".pfm", ".pnm", ".psd", ".qoi", ".raf", ".raw", ".rgb", ".rgba",
    ".rw2", ".sgi", ".sr2", ".svg", ".tga", ".wbmp", ".xbm", ".xpm",
))  # fmt: skip
"""Suffixes of images that are not read."""


class Entry(NamedTuple):
    """One entry of a folder: its name, its path, and what it is after following links.

    A link that leads nowhere is neither a folder nor a file.
    """

    name: str
    path: str
    folder: bool
    file: bool
    link: bool

    @property
    def broken(self) -> bool:
        """Whether it is a link that leads nowhere."""
        return self.link and not self.folder and not self.file

    @property
    def image(self) -> bool:
        """Whether it is an image, or a link to one that may lead nowhere."""
        return (self.file or self.broken) and is_image(self.name)

    @property
    def hidden(self) -> bool:
        """Whether it belongs to a desktop, an editor or an archiver, and not to the data."""
        return self.name.startswith((".", "__"))


def is_image(name: str) -> bool:
    """Return whether a file name is that of an image; hidden files, such as ``._x.jpg``, are none."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def is_unread(name: str) -> bool:
    """Return whether a file name is that of an image of a format that is not read."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in UNREAD


def without_suffix(path: str) -> str:
    """Return a path without the suffix of an image, if it has one."""
    stem, suffix = os.path.splitext(path)
    return stem if suffix.lower() in EXTENSIONS else path


def broken_link(entry: Entry) -> BadInputError:
    """Return the error of a link that leads nowhere and may have been a folder of images."""
    return BadInputError(
        f"{entry.path} is a link to {os.readlink(entry.path)!r}, which is not there; restore what it leads to or "
        "remove the link"
    )


def entries(folder: str | Path) -> list[Entry]:
    """Return what a folder holds in the order of the names.

    Raises:
        BadInputError: If it cannot be looked into, or a link in it leads in a circle.
    """
    try:
        with os.scandir(folder) as found:
            listed = [Entry(e.name, e.path, e.is_dir(), e.is_file(), e.is_symlink()) for e in found]
    except OSError as error:
        raise BadInputError(
            f"{error.filename or folder} must be a folder or a file that can be read, but {error.strerror}; fix or "
            "remove it"
        ) from error
    return sorted(listed, key=lambda entry: entry.name)


def images_below(folder: str | Path, nested: bool, above: tuple[Path, ...] = ()) -> list[str]:
    """Return the images of a folder in the order of their names, relative to it.

    A link to an image that leads nowhere is among them: to read it fails, and says so.

    Args:
        folder: The folder.
        nested: Whether those of the folders in it follow.
        above: Where the links were found that led here.

    Raises:
        BadInputError: If a link leads to a folder that it lies in, or nowhere, or a name is not UTF-8.
    """
    listed = entries(folder)
    found = [utf8(entry.name, folder) for entry in listed if entry.image]
    for entry in listed if nested else ():
        if entry.broken and not entry.hidden and not os.path.splitext(entry.name)[1]:
            raise broken_link(entry)
        if entry.folder:
            links = (*above, Path(folder).resolve()) if entry.link else above
            if entry.link and any(one.is_relative_to(Path(entry.path).resolve()) for one in links):
                raise BadInputError(
                    f"{entry.path} must not be a link to a folder that it lies in, as that has no end; remove it"
                )
            found += [f"{utf8(entry.name, folder)}/{file}" for file in images_below(entry.path, True, links)]
    return found


def utf8(name: str, place: str | Path) -> str:
    """Return a name that can be written into records.

    Raises:
        BadInputError: If its bytes are not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise BadInputError(
            f"names in {str(place)!a} must be UTF-8, got {os.fsencode(name)!r}; rename it"
        ) from error
    return name
