# SPDX-License-Identifier: Apache-2.0
"""Files under one fsspec URL: whole files appear by rename, so that a reader never meets half of one."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from tta_bench.errors import StoreError
from tta_bench.records.process import TEMPORARY, abandoned, temporary_name
from tta_bench.spec.texts import masked
from tta_bench.spec.whole import sync_folder


class Files:
    """Read and write whole files below one URL.

    Args:
        url: A plain path, or any URL that fsspec knows (``file://``, ``memory://``, ``s3://``).

    Raises:
        StoreError: If the URL names a protocol that is unknown or whose package is not installed.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        given = os.fspath(url)
        self.url = masked(given)
        """For messages: without its password."""
        try:
            self._fs, root = url_to_fs(given)
        except (ValueError, ImportError) as error:
            raise StoreError(
                f"the run folder should be a path or a URL that fsspec can open, got {self.url!r} ({error}); "
                "give a path or install the package for that protocol"
            ) from error
        self._root = str(root).rstrip("/")

    def below(self, name: str) -> Files:
        """Return the files below a folder of these."""
        other = copy(self)
        other.url, other._root = self.path(name), self._full(name)
        return other

    def path(self, name: str) -> str:
        """Return the path of a file as the user would type it."""
        return f"{self.url.rstrip('/')}/{name}"

    def _full(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root or "/"

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names in a folder without unfinished files; empty if the folder is not there."""
        return [name for name in self._list(folder) if not name.startswith(TEMPORARY)]

    def unfinished(self, folder: str) -> list[str]:
        """Return the names of files in a folder that a killed process left half written."""
        return [name for name in self._list(folder) if name.startswith(TEMPORARY)]

    def _list(self, folder: str) -> list[str]:
        full = self._full(folder)
        self._fs.invalidate_cache()
        try:
            entries = self._fs.ls(full, detail=False)
        except FileNotFoundError:
            return []
        return sorted({str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries})

    def is_file(self, name: str = "") -> bool:
        """Return whether there is a file of that name; without a name, at the URL itself."""
        return bool(self._fs.isfile(self._full(name)))

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, or None if there is no such file.

        Raises:
            StoreError: If it cannot be read.
        """
        try:
            return bytes(self._fs.cat_file(self._full(name)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(
                f"{self.path(name)} should be a readable file and is not ({error}); fix it or choose another "
                "run folder with output=",
                options=("output",),
            ) from error

    def size(self, name: str) -> int:
        """Return the bytes of a file, 0 if there is no such file."""
        try:
            return int(self._fs.size(self._full(name)) or 0)
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def sha256(self, name: str) -> str | None:
        """Return the SHA-256 of a file, or None if there is no such file.

        Raises:
            StoreError: If it cannot be read.
        """
        digest = hashlib.sha256()
        try:
            with self._fs.open(self._full(name), "rb") as handle:
                while block := handle.read(2**20):
                    digest.update(block)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{self.path(name)} should be a readable file and is not ({error})") from error
        return digest.hexdigest()

    def remove_abandoned(self, folder: str) -> None:
        """Remove what processes of this host that have ended left half written in a folder."""
        for name in self.unfinished(folder):
            if abandoned(name):
                with suppress(OSError):  # it does no harm
                    self._fs.rm_file(self._full(f"{folder}/{name}" if folder else name))

    def write(self, name: str, content: bytes) -> None:
        """Write a file under a temporary name and rename it.

        Raises:
            StoreError: If it cannot be written.
        """
        self._write(name, lambda handle: handle.write(content))

    def read_table(self, name: str, columns: list[str] | None = None, *, verify: bool = False) -> pa.Table:
        """Read some columns of a parquet file; ``verify`` checks the checksum of every page.

        Raises:
            FileNotFoundError: If there is no such file.
            OSError: If the file is cut short or a checksum is wrong.
            ValueError: If it is not parquet; `pyarrow.ArrowInvalid` is one.
        """
        with pq.ParquetFile(
            self._full(name), filesystem=self._fs, page_checksum_verification=verify
        ) as opened:
            return opened.read(columns=columns)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a parquet file with page checksums under a temporary name and rename it.

        Raises:
            StoreError: If it cannot be written.
        """
        self._write(
            name,
            lambda handle: pq.write_table(table, handle, compression="zstd", write_page_checksum=True),
        )

    @contextmanager
    def table_writer(self, name: str, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
        """Give a function that adds tables to a parquet file, which appears when the context ends without an error.

        Raises:
            StoreError: If it cannot be written.
        """
        temporary = self._temporary(name)
        try:
            with self._fs.open(temporary, "wb") as handle:
                with pq.ParquetWriter(handle, schema, compression="zstd", write_page_checksum=True) as writer:
                    yield writer.write_table
                _make_durable(handle)
            self._move(temporary, name)
        except OSError as error:
            self._drop(temporary)
            raise self._unwritable(name, error) from error
        except BaseException:
            self._drop(temporary)
            raise

    def _temporary(self, name: str) -> str:
        """Return the full temporary path of a file that is written; its folder is made."""
        folder, _, last = name.rpartition("/")
        full = self._full(folder)
        try:
            self._fs.makedirs(full, exist_ok=True)
        except OSError as error:
            raise self._unwritable(name, error) from error
        return f"{full.rstrip('/')}/{temporary_name(last)}"

    def _drop(self, temporary: str) -> None:
        with suppress(OSError):
            self._fs.rm_file(temporary)

    def _write(self, name: str, fill: Callable[[IO[bytes]], object]) -> None:
        temporary = self._temporary(name)
        try:
            with self._fs.open(temporary, "wb") as handle:
                fill(handle)
                _make_durable(handle)
            self._move(temporary, name)
        except OSError as error:
            self._drop(temporary)
            raise self._unwritable(name, error) from error

    def _move(self, old: str, name: str) -> None:
        """Give a file or a folder its name, and let the disk of this machine have the name."""
        new = self._full(name)
        self._fs.mv(old, new)
        if isinstance(self._fs, LocalFileSystem):
            sync_folder(os.path.dirname(new))

    def _unwritable(self, name: str, error: OSError) -> StoreError:
        return StoreError(
            f"{self.path(name)} should be writable and is not ({error}); "
            "free space or choose another run folder with output=",
            options=("output",),
        )

    def rename(self, name: str, new_name: str) -> None:
        """Rename a file or a folder, replacing a file that had the new name.

        Raises:
            StoreError: If it cannot be renamed.
        """
        try:
            self._move(self._full(name), new_name)
        except OSError as error:
            raise self._unwritable(name, error) from error

    def remove(self, name: str) -> None:
        """Remove a file if it is there.

        Raises:
            StoreError: If it cannot be removed.
        """
        full = self._full(name)
        try:
            if self._fs.exists(full):
                self._fs.rm_file(full)
        except OSError as error:
            raise self._unwritable(name, error) from error

    def remove_folder(self, name: str) -> None:
        """Remove a folder and all in it, if it is there."""
        full = self._full(name)
        if self._fs.exists(full):
            self._fs.rm(full, recursive=True)


def _make_durable(handle: IO[bytes]) -> None:
    """Let the disk have a file before it gets its name, so that a power cut leaves no name without its bytes."""
    handle.flush()
    try:
        number = handle.fileno()
    except (AttributeError, OSError, io.UnsupportedOperation):  # not a file of this machine
        return
    os.fsync(number)


def write_whole(path: str, content: bytes) -> None:
    """Write a file of results anywhere; a reader sees the old one or the new one, never half of it.

    Args:
        path: A plain path or any URL that fsspec knows.
        content: Its bytes.

    Raises:
        StoreError: If it cannot be written.
    """
    folder, slash, name = path.rpartition("/")
    Files(folder or slash or ".").write(name, content)
