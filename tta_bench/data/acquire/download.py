# SPDX-License-Identifier: Apache-2.0
"""Fetch one file over HTTP: resume after a cut connection, refuse pages, check the sum, leave nothing half."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tta_bench.data.catalogue.files import Download
from tta_bench.errors import BadInputError

BLOCK = 1 << 20
ATTEMPTS = 5
TIMEOUT_S = 60
MOST_BYTES = 1 << 40
"""Bytes of the largest file that is fetched where no size is published."""
PAUSE_S = 1.0
OK, PARTIAL, NOT_SATISFIABLE = 200, 206, 416
Progress = Callable[[int, int], None]


def fetch(
    download: Download, folder: Path, progress: Progress | None = None, pause_s: float = PAUSE_S
) -> Path:
    """Return the path of a fetched file whose checksum is right, fetching what is missing of it.

    A file under way is kept as ``<name>.part``; the next attempt, or the next run, resumes where it stopped. A file
    with a wrong checksum is removed. Two processes that want files in one folder fetch them one after the other.

    Args:
        download: Where it is and what its sum must be.
        folder: Where to put it.
        progress: Called with the bytes that are there and the bytes in all (0 if unknown).
        pause_s: Seconds to wait before the second attempt; doubled before each further one.

    Raises:
        BadInputError: If it cannot be fetched, is a page instead of a file, or its checksum is wrong.
    """
    path = folder / download.file
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if path.is_file():
            verify(path, download)
        else:
            _fetch(download, path, progress or _silent, pause_s)
    return path


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process fetches into a folder; the system ends the lock of one that was killed."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _fetch(download: Download, path: Path, progress: Progress, pause_s: float) -> None:
    """Fetch a file in several attempts and check its sum."""
    part = path.with_name(path.name + ".part")
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        try:
            if _fetch_rest(download, part, progress):
                break
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500:
                raise BadInputError(
                    f"{download.url} answers {error.code} {error.reason}; fetch {download.file} by hand "
                    f"into {path.parent}"
                ) from error
            reason: Exception = error
        except (OSError, http.client.HTTPException, ValueError) as error:
            _refuse_hopeless(download, part, error)
            reason = error
        else:
            reason = ConnectionError("the connection was cut")
    else:
        raise BadInputError(
            f"{download.url} could not be fetched in {ATTEMPTS} attempts ({reason}); the part that came is kept in "
            f"{part}, and the same command resumes from there"
        )
    verify(part, download)
    part.replace(path)


def _refuse_hopeless(download: Download, part: Path, error: Exception) -> None:
    """Refuse what no further attempt changes: our own refusal, a full disk, no network, or an address that is none.

    Raises:
        BadInputError: With the reason.
    """
    if isinstance(error, BadInputError):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        raise BadInputError(
            f"{download.file} cannot be written to {part.parent} ({error.strerror}); free space or choose another "
            "folder with --root, and run the command again"
        ) from error
    reason = getattr(error, "reason", None)
    if isinstance(reason, socket.gaierror):
        raise BadInputError(
            f"{download.file} cannot be fetched, since the host of {download.url} is not found ({reason}); connect to "
            "the network and run the command again"
        ) from error
    if isinstance(error, ValueError):
        raise BadInputError(
            f"{download.url} must be an address that begins with http:// or https:// ({error}); fetch {download.file} "
            f"by hand into {part.parent}"
        ) from error


def _silent(done: int, total: int) -> None:
    """Take progress and say nothing."""


def _fetch_rest(download: Download, part: Path, progress: Progress) -> bool:
    """Append what is missing of a file and return whether all of it is there."""
    done = part.stat().st_size if part.is_file() else 0
    _check_scheme(download, download.url)
    request = urllib.request.Request(download.url, headers={"User-Agent": "tta-bench"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == NOT_SATISFIABLE and done:  # nothing is left to send
            error.close()
            return True
        raise
    with answer:
        _check_scheme(download, answer.geturl())
        _refuse_page(download, answer)
        if answer.status != PARTIAL:
            done = 0  # the server sends it from the start
        elif not (answer.headers.get("Content-Range") or "").startswith(f"bytes {done}-"):
            part.unlink()
            raise http.client.HTTPException(f"it did not resume at byte {done}, so all is asked for again")
        total = _total(answer.headers.get("Content-Length"), done)
        most = _most(download, part, total)
        with part.open("ab" if done else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                done += len(block)
                if done > most:
                    part.unlink()
                    raise BadInputError(
                        f"{download.url} sends more than the {most:,} bytes of {download.file}; fetch it by hand into "
                        f"{part.parent}"
                    )
                progress(done, total)
    return not total or done >= total


def _check_scheme(download: Download, address: str) -> None:
    """Refuse an address, or one that it leads to, that is not of the web.

    Raises:
        BadInputError: For any other.
    """
    scheme = address.partition(":")[0].lower()
    if scheme not in ("http", "https"):
        raise BadInputError(
            f"{download.url} must lead to an address that begins with http:// or https://, got {scheme}://; fetch "
            f"{download.file} by hand"
        )


def _total(length: str | None, done: int) -> int:
    """Return the bytes in all that an answer announces, 0 if it says nothing that makes sense."""
    return done + int(length) if length and length.isascii() and length.isdecimal() else 0


def _most(download: Download, part: Path, total: int) -> int:
    """Return how many bytes are taken at most.

    Raises:
        BadInputError: If the disk has no room for what is announced.
    """
    free = shutil.disk_usage(part.parent).free + (part.stat().st_size if part.is_file() else 0)
    if max(total, download.size) > free:
        raise BadInputError(
            f"{download.file} has {max(total, download.size):,} bytes, but {part.parent} has room for {free:,}; free "
            "space or choose another folder with --root"
        )
    return download.size or MOST_BYTES


def _refuse_page(download: Download, answer: Any) -> None:
    kind = answer.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise BadInputError(
            f"{download.url} sent a web page instead of {download.file}; open it in a browser (it may ask to log in "
            "or to confirm) and put the file in place by hand"
        )


def verify(path: Path, download: Download) -> None:
    """Remove a file whose checksum is not the published one.

    Raises:
        BadInputError: If it was removed.
    """
    kind, _, wanted = download.checksum.partition(":")
    found = _sum(path, kind)
    if found == wanted:
        return
    with path.open("rb") as file:
        page = file.read(64).lstrip().lower().startswith((b"<!doctype html", b"<html"))
    size = path.stat().st_size
    path.unlink()
    what = "it was a web page" if page else f"its {kind} was {found} ({size} bytes), not {wanted}"
    raise BadInputError(
        f"{path} was removed because {what}; run the command again, or fetch it by hand from {download.url}"
    )


def _sum(path: Path, kind: str) -> str:
    made = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            made.update(block)
    return made.hexdigest()
