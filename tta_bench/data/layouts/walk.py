# SPDX-License-Identifier: Apache-2.0
"""Look into folders: images and folders by name, links followed, and a sentence for what cannot be followed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from tta_bench.errors import BadInputError

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))


class Entry(NamedTuple):
    """One entry of a folder: its name, its path, and what it is after following links."""

    name: str
    path: str
    folder: bool
    file: bool
    link: bool


def is_image(name: str) -> bool:
    """Return whether a file name is that of an image; hidden files, such as ``._x.jpg``, are none."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


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
            f"{error.filename or folder} must be a folder or a file that can be read, but {error.strerror}; mend or "
            "remove it"
        ) from error
    return sorted(listed, key=lambda entry: entry.name)


def images_below(folder: str | Path, nested: bool, above: tuple[Path, ...] = ()) -> list[str]:
    """Return the images of a folder in the order of their names, relative to it.

    Args:
        folder: The folder.
        nested: Whether those of the folders in it follow.
        above: Where the links were found that led here.

    Raises:
        BadInputError: If a link leads to a folder that it lies in, or a name is not UTF-8.
    """
    listed = entries(folder)
    found = [utf8(entry.name, folder) for entry in listed if entry.file and is_image(entry.name)]
    for entry in listed if nested else ():
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
