# SPDX-License-Identifier: Apache-2.0
"""A folder of the user's own images: what makes it one folder per class, and the sentence for all else."""

from __future__ import annotations

from pathlib import Path

from tta_bench.data.layouts.walk import Entry, broken_link, entries, is_unread, utf8
from tta_bench.errors import BadInputError


def own_classes(folder: Path) -> tuple[str, ...]:
    """Return the class folders in a folder, in the order of their names.

    Raises:
        BadInputError: If there are fewer than two, one holds no image of its own, or images would be left out.
    """
    listed = entries(folder)
    outside = [entry.name for entry in listed if entry.image]
    found = [entry for entry in listed if _is_class(entry)]
    if len(found) < 2:
        names = ", ".join(entry.name for entry in found) or "none"
        raise BadInputError(
            f"{folder} must hold one folder of images per class, two at least, got {names}"
            + (_deeper(folder, found) or "; sort the images into a folder for each class")
        )
    for entry in found:
        _check_class(folder, entry)
    if outside:
        raise BadInputError(
            f"{folder} holds images outside its class folders ({_some(outside)}), which have no label; move them into "
            "a class folder, or out of the way"
        )
    return tuple(utf8(entry.name, folder) for entry in found)


def _is_class(entry: Entry) -> bool:
    if entry.broken and not entry.hidden and not entry.image:
        raise broken_link(entry)
    return entry.folder and not entry.hidden


def _check_class(folder: Path, entry: Entry) -> None:
    """Refuse a class folder that holds no image itself, or images of a format that is not read."""
    inside = entries(entry.path)
    unread = sorted(one.name for one in inside if is_unread(one.name))
    if unread:
        raise BadInputError(
            f"{entry.path} holds images of a format that is not read ({_some(unread)}); convert them to PNG or JPEG, "
            "or move them out of the way"
        )
    if not any(one.image for one in inside):
        raise BadInputError(
            f"{entry.path} must hold images of its own to be a class"
            + (
                _deeper(folder, [entry])
                or "; name the folder whose folders are the classes, or remove this one"
            )
        )


def _deeper(folder: Path, found: list[Entry]) -> str:
    """Return the phrase that names the right level of folders, if it lies one level deeper."""
    for entry in found:
        for below in entries(entry.path):
            if below.folder and not below.hidden and any(one.image for one in entries(below.path)):
                return (
                    f", but its images lie in folders inside it: did you mean folder:{folder / entry.name}?"
                )
    return ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
