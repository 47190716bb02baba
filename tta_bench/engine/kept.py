# SPDX-License-Identifier: Apache-2.0
"""Tensors in the cache folder: written whole or not at all, checked when they are read, the oldest removed first.

Every file is a safetensors file whose metadata holds a key, the hash of everything that its content depends on, and a
checksum over the tensors. A file that is missing, cut, changed or of another key is the same as none: whoever asked
computes it again. Entries are the files of `INITIAL` and the folders of `FEATURES`; together they stay below a limit.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tta_bench.data.layouts.locate import cache_folder
from tta_bench.errors import BadInputError

INITIAL, FEATURES = "initial-states", "features"
KINDS = (INITIAL, FEATURES)
SUFFIX = ".safetensors"
LIMIT_VARIABLE = "TTA_BENCH_CACHE_LIMIT"
DEFAULT_LIMIT = "10GiB"
ABANDONED_S = 3600
"""Age at which an unfinished file is nobody's any more."""
_verified: dict[str, tuple[int, int, int]] = {}
"""Size, time of change and inode of every file whose checksum this process has compared."""


class Kept(NamedTuple):
    """The content of one file: tensors that are mapped from it, and facts in words."""

    tensors: dict[str, Tensor]
    facts: dict[str, str]


class Entry(NamedTuple):
    """Files that are removed together.

    Attributes:
        kind: One of `KINDS`.
        path: A file, or a folder of files.
        size: Bytes.
        used: When it was used last, seconds since the epoch.
    """

    kind: str
    path: Path
    size: int
    used: float

    def files(self) -> list[Path]:
        """Return its files of tensors."""
        return sorted(self.path.glob(f"*{SUFFIX}")) if self.path.is_dir() else [self.path]

    def remove(self) -> None:
        """Remove it; what another process removes at the same time is no error."""
        if self.path.is_dir():
            for path in self.path.iterdir():
                path.unlink(missing_ok=True)
            self.path.rmdir()
        else:
            self.path.unlink(missing_ok=True)


def folder_of(kind: str) -> Path:
    """Return the folder of a kind of entries."""
    return cache_folder() / kind


def read_size(text: str) -> int:
    """Return bytes, given ``500MB``, ``10GiB``, ``2.5G`` or a plain number.

    Raises:
        BadInputError: If it is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if not found:
        raise BadInputError(f"a size must be a number with a unit such as 500MB or 10GiB, got {text!r}")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** _power(unit))


def _power(unit: str) -> int:
    return " KMGT".index(unit.upper()) if unit else 0


def size_limit() -> int:
    """Return how many bytes the entries may take together; 0 turns the cache off.

    Raises:
        BadInputError: If the environment variable is no size.
    """
    text = os.environ.get(LIMIT_VARIABLE, "") or DEFAULT_LIMIT
    try:
        return read_size(text)
    except BadInputError as error:
        raise BadInputError(f"{LIMIT_VARIABLE} is no size: {error}") from None


def read_kept(path: Path, key: str) -> Kept | None:
    """Return what a file holds under a key; None where there is no such file, or it is not what was written."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            facts = dict(file.metadata() or {})
            if facts.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        status = os.stat(path)
        state = (status.st_size, status.st_mtime_ns, status.st_ino)
        if _verified.get(str(path)) != state:
            if facts.get("sum") != checksum(tensors):
                return None
            _verified[str(path)] = state
        return Kept(tensors, facts)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):  # torch maps a file that was cut
        return None


def intact(path: Path) -> bool:
    """Return whether a file is what was written, whatever its key."""
    _verified.pop(str(path), None)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            key = (file.metadata() or {}).get("key", "")
    except (OSError, SafetensorError):
        return False
    return bool(key) and read_kept(path, key) is not None


def write_kept(path: Path, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Write a file whole or not at all, and make room for it.

    Raises:
        OSError: If it cannot be written, or is larger than the limit.
    """
    made = {name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}
    size = sum(one.numel() * one.element_size() for one in made.values())
    entry = path if path.parent.name in KINDS else path.parent
    if not make_room(size, entry):
        raise OSError(f"the limit of the cache is {size_limit()} bytes")
    part = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.part")
    facts = {**facts, "key": key, "sum": checksum(made)}
    try:
        try:
            _write(path, part, made, facts)
        except OSError:
            if path.parent.exists():
                raise
            _write(path, part, made, facts)  # another process removed the folder to make room
    finally:
        part.unlink(missing_ok=True)


def _write(path: Path, part: Path, tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file(tensors, part, facts)
    except SafetensorError as error:  # as it reports a full disk
        raise OSError(str(error)) from error
    part.replace(path)


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def touch(path: Path) -> None:
    """Note that an entry is in use."""
    try:
        os.utime(path)
    except OSError:
        return  # a folder that is only read has no use for it


def entries() -> list[Entry]:
    """Return all entries, those used longest ago first."""
    found = [one for kind in KINDS for one in _entries(kind)]
    return sorted(found, key=lambda entry: (entry.used, entry.path))


def _entries(kind: str) -> Iterator[Entry]:
    try:
        paths = list(folder_of(kind).iterdir())
    except OSError:
        return
    for path in paths:
        try:
            status = path.stat()
            if path.is_dir():
                size = sum(one.stat().st_size for one in path.iterdir())
            elif path.suffix == SUFFIX:
                size = status.st_size
            else:
                continue
        except OSError:
            continue  # removed meanwhile
        yield Entry(kind, path, size, status.st_mtime)


def make_room(size: int, entry: Path) -> bool:
    """Remove the entries used longest ago until so many bytes more fit; tell whether they do.

    Args:
        size: Bytes to come.
        entry: Where they come, which stays.
    """
    room = size_limit() - size
    others, taken = [], 0
    for one in entries():
        taken += one.size
        if one.path != entry:
            others.append(one)
    for one in others:
        if taken <= room:
            break
        taken -= one.size
        _remove(one)
    return taken <= room


def prune(most: int) -> list[Entry]:
    """Remove the entries used longest ago until all together take at most so many bytes; return the removed ones.

    Unfinished files that no process writes any more go as well.
    """
    for path in unfinished():
        path.unlink(missing_ok=True)
    found = entries()
    taken, removed = sum(one.size for one in found), []
    for one in found:
        if taken <= most:
            break
        taken -= one.size
        _remove(one)
        removed.append(one)
    return removed


def unfinished() -> list[Path]:
    """Return the files that a process began to write and left, an hour ago or more."""
    before, found = time.time() - ABANDONED_S, []
    for kind in KINDS:
        for path in folder_of(kind).rglob(".*"):
            try:
                if path.stat().st_mtime < before:
                    found.append(path)
            except OSError:
                continue  # it was finished meanwhile
    return found


def _remove(entry: Entry) -> None:
    try:
        entry.remove()
    except OSError:
        return  # another process writes into it, or it is not ours
