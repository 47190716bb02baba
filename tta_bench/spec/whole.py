# SPDX-License-Identifier: Apache-2.0
"""Files of this machine that are there whole or not at all: written under another name, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield the path to write a file at; it gets its own name when all is written, and nothing is left if that fails.

    The disk has the file before it gets its name, and the name before this ends.

    Args:
        path: The file; one that is there stays as it is until the new one is whole.

    Raises:
        OSError: If it cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8 with its line ends as they are.

    Raises:
        OSError: If it cannot be written.
    """
    with whole(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Let the disk have the names in a folder, where the system can do that for folders."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:  # no folder of this machine, or a system that opens none
        return
    try:
        with suppress(OSError):
            os.fsync(number)
    finally:
        os.close(number)
