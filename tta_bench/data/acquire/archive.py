# SPDX-License-Identifier: Apache-2.0
"""Unpack archives from strangers: nothing is written outside the target, and no link leads out of it."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tta_bench.data.catalogue.files import Unpack
from tta_bench.errors import BadInputError

LINK_BITS = 16
ENCRYPTED = 1
MOST_MEMBERS = 4_000_000
"""More than the largest archive of images has; ImageNet's training set has 1.3 million."""
MOST_RATIO, FREE_OF_RATIO = 100, 1 << 28
"""Largest ratio of content to archive, for content above so many bytes; images hardly shrink."""
LONGEST_NAME = 255
"""Bytes of a file name that every file system takes."""
MALFORMED = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error, ValueError, RuntimeError,
    LookupError, ArithmeticError, AttributeError, TypeError, MemoryError,
)  # fmt: skip
"""Exceptions of the libraries on damaged or hostile archives."""


class Member(NamedTuple):
    """One file or folder of an archive.

    Attributes:
        name: As the archive spells it.
        size: Bytes; 0 for a folder.
        folder: Whether it is a folder.
        special: Why it must not be unpacked; empty if it may.
        content: Opens it.
    """

    name: str
    size: int
    folder: bool
    special: str
    content: Callable[[], IO[bytes] | None]


def unpack(path: Path, kind: Unpack, target: Path) -> dict[str, int]:
    """Unpack an archive into a folder, all of it or nothing that is dangerous; return its files with their sizes.

    Every member is checked before the first is written. Files that are there with the right size are kept, so
    that an interrupted unpacking resumes quickly.

    Args:
        path: The archive.
        kind: ``tar`` (compressed in any way) or ``zip``.
        target: Folder to unpack into.

    Raises:
        BadInputError: If it is no such archive, is larger inside than it may be or the disk has room for, or a member
            is an absolute path, leads out of the target, is a link, a device or encrypted, or bears no usable name.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path) if kind == "zip" else tarfile.open(path, "r:*") as archive:
            members = list(_checked(path, _members(archive), target))
            for member in members:
                _write(_destination(path, member.name, target), None if member.folder else member)
            return {member.name: member.size for member in members if not member.folder}
    except BadInputError:
        raise
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        raise BadInputError(
            f"{path} cannot be unpacked into {target} ({error.strerror or error}{where}); make room or another folder, "
            "and run the command again"
        ) from error
    except MALFORMED as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BadInputError(f"{path} cannot be unpacked ({reason}); remove it and fetch it again") from error


def _members(archive: tarfile.TarFile | zipfile.ZipFile) -> Iterator[Member]:
    """Yield the members of an archive."""
    if isinstance(archive, zipfile.ZipFile):
        for info in archive.infolist():
            special = "is a link or a device" if stat.S_ISLNK(info.external_attr >> LINK_BITS) else ""
            if info.flag_bits & ENCRYPTED:
                special = "is encrypted: unpack it by hand with its password"
            size = 0 if info.is_dir() else info.file_size
            yield Member(info.filename, size, info.is_dir(), special, partial(archive.open, info))
        return
    for one in archive:
        special = "" if one.isfile() or one.isdir() else "is a link or a device"
        size = one.size if one.isfile() else 0
        yield Member(one.name, size, one.isdir(), special, partial(archive.extractfile, one))


def _checked(path: Path, members: Iterable[Member], target: Path) -> Iterator[Member]:
    """Yield the members after a look at each one, and at all of them together.

    Raises:
        BadInputError: At the first that must not be unpacked, or that is too much.
    """
    total, packed = 0, path.stat().st_size
    places: dict[str, bool] = {}
    for number, member in enumerate(members, 1):
        if number > MOST_MEMBERS:
            _refuse(path, member.name, f"is one of more than {MOST_MEMBERS:,}")
        if member.special:
            _refuse(path, member.name, member.special)
        destination = _destination(path, member.name, target)
        _check_place(path, member, destination.relative_to(target), places)
        total += member.size
        if total > max(FREE_OF_RATIO, MOST_RATIO * packed):
            _refuse(
                path, member.name, f"makes the content more than {MOST_RATIO} times as large as the archive"
            )
        yield member
    _check_room(path, total, target, [place for place, folder in places.items() if not folder])


def _check_place(path: Path, member: Member, place: Path, places: dict[str, bool]) -> None:
    """Refuse a second file of one name, and a name that is both a file and a folder."""
    name = str(place)
    if (name in places and not member.folder) or places.get(name) is False:
        _refuse(path, member.name, "is there twice, or as a file and as a folder")
    places[name] = member.folder
    for above in map(str, place.parents):
        if places.setdefault(above, True) is False:
            _refuse(path, member.name, "lies in a folder that is there as a file")


def _check_room(path: Path, total: int, target: Path, files: list[str]) -> None:
    """Refuse more than the disk has room for, less what is there already."""
    free = shutil.disk_usage(target).free
    if total <= free:
        return
    there = sum((target / file).stat().st_size for file in files if (target / file).is_file())
    if total - there > free:
        raise BadInputError(
            f"{path} needs {total - there:,} bytes unpacked, but {target} has room for {free:,}; free space or choose "
            "another folder with --root"
        )


def _destination(path: Path, name: str, target: Path) -> Path:
    """Return where a member goes, refusing every name that does not stay below the target."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if "\0" in name or not name.strip("./\\ "):
        if name.rstrip("/") == ".":
            return target
        _refuse(path, name, "has no usable name")
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in parts.parts):
        _refuse(path, f"{name[:40]}...", f"has a name of more than {LONGEST_NAME} bytes")
    if parts.is_absolute() or ".." in parts.parts or ":" in (parts.parts or ("",))[0]:
        _refuse(path, name, "leads out of the folder")
    destination = target.joinpath(*parts.parts)
    if not destination.resolve().is_relative_to(target.resolve()):
        _refuse(path, name, "leads out of the folder through a link that is there")
    return destination


def _refuse(path: Path, name: str, why: str) -> None:
    raise BadInputError(
        f"{path} is not unpacked because its member {name!r} {why}; an archive of images has no need for that, so "
        "fetch it from its official place"
    )


def _write(destination: Path, member: Member | None) -> None:
    """Write a file, or make a folder."""
    if member is None:
        destination.mkdir(parents=True, exist_ok=True)
        return
    if destination.is_file() and destination.stat().st_size == member.size:
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    content = member.content()
    assert content is not None
    with content, destination.open("wb") as file:
        shutil.copyfileobj(content, file)
