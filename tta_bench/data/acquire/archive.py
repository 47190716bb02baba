# SPDX-License-Identifier: Apache-2.0
"""Unpack archives from strangers: nothing is written outside the target, and no link leads out of it."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

from tta_bench.data.catalogue.files import Unpack
from tta_bench.errors import BadInputError

LINK_BITS = 16


def unpack(path: Path, kind: Unpack, target: Path) -> dict[str, int]:
    """Unpack an archive into a folder, all of it or nothing that is dangerous; return its files with their sizes.

    Every member is checked before the first is written. Files that are there with the right size are kept, so
    that an interrupted unpacking goes on quickly.

    Args:
        path: The archive.
        kind: ``tar`` (compressed in any way) or ``zip``.
        target: Folder to unpack into.

    Raises:
        BadInputError: If it is no such archive, or a member is an absolute path, leads out of the target, or is a
            link or a device.
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        return _unpack_zip(path, target) if kind == "zip" else _unpack_tar(path, target)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise BadInputError(f"{path} cannot be unpacked ({error}); remove it and fetch it again") from error


def _unpack_tar(path: Path, target: Path) -> dict[str, int]:
    with tarfile.open(path, "r:*") as archive:
        members = archive.getmembers()
        for member in members:
            if not (member.isfile() or member.isdir()):
                _refuse(path, member.name, "is a link or a device")
            _destination(path, member.name, target)
        for member in members:
            content = archive.extractfile(member) if member.isfile() else None
            _write(_destination(path, member.name, target), content, member.size)
        return {member.name: member.size for member in members if member.isfile()}


def _unpack_zip(path: Path, target: Path) -> dict[str, int]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for info in members:
            if stat.S_ISLNK(info.external_attr >> LINK_BITS):
                _refuse(path, info.filename, "is a link or a device")
            _destination(path, info.filename, target)
        for info in members:
            destination = _destination(path, info.filename, target)
            if info.is_dir():
                _write(destination, None, 0)
            else:
                with archive.open(info) as content:
                    _write(destination, content, info.file_size)
        return {info.filename: info.file_size for info in members if not info.is_dir()}


def _destination(path: Path, name: str, target: Path) -> Path:
    """Return where a member goes, refusing every name that does not stay below the target."""
    parts = PurePosixPath(name.replace("\\", "/"))
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


def _write(destination: Path, content: IO[bytes] | None, size: int) -> None:
    if content is None:
        destination.mkdir(parents=True, exist_ok=True)
        return
    if destination.is_file() and destination.stat().st_size == size:
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    with destination.open("wb") as file:
        shutil.copyfileobj(content, file)
