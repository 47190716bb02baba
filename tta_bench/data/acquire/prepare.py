# SPDX-License-Identifier: Apache-2.0
"""Get a dataset's files: what may be fetched is fetched, for the rest the exact steps are told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tta_bench.data.acquire.archive import unpack
from tta_bench.data.acquire.download import Progress, fetch
from tta_bench.data.catalogue.files import Download, Files
from tta_bench.data.images.contents import read_kept, state
from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.spec.whole import write_whole

GIB = 1 << 30
ARCHIVES = ".downloads"


def chosen_parts(files: Files, parts: Sequence[str]) -> tuple[Download, ...]:
    """Return the downloads of some parts of a dataset; all of them if none is named.

    Raises:
        UnknownNameError: For a part that the dataset does not have.
        BadInputError: If it has no parts at all.
    """
    known = sorted({download.part for download in files.downloads if download.part})
    for part in parts:
        if not known:
            raise BadInputError(
                f"{files.name} has no parts to choose from, got part {part}; leave it out", options=("part",)
            )
        if part not in known:
            raise UnknownNameError("part", part, known)
    return tuple(download for download in files.downloads if not parts or download.part in parts)


def instructions(files: Files, root: Path) -> list[str]:
    """Return the steps by hand and the tree that they lead to, one line each.

    Args:
        files: The dataset's files.
        root: Data folder that they go to.
    """
    lines = [f"{number}. {step}" for number, step in enumerate(files.steps, 1)]
    lines += ["", f"Expected below {root}:", *(f"  {line}" for line in files.tree)]
    lines += ["", f"Then: tta-bench data check {files.name}"]
    return lines


def get(
    downloads: Sequence[Download],
    root: Path,
    progress: Progress | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> None:
    """Fetch and unpack files below a data folder; what is there in full already is not fetched again.

    Args:
        downloads: What to fetch.
        root: Data folder; archives are kept in ``.downloads`` inside it until they are unpacked.
        progress: Called with bytes done and bytes in all.
        report: Called with a line for each thing that is done.

    Raises:
        BadInputError: If something cannot be fetched or must not be unpacked.
    """
    try:
        (root / ARCHIVES).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(root, error) from error
    for download in downloads:
        target = root / download.into
        done = root / ARCHIVES / f"{download.file}.done"
        lacking = _lacking(read_kept(done), download, target)
        if lacking == []:
            report(f"{download.file}: unpacked already")
            continue
        if lacking:
            report(f"{download.file}: {len(lacking)} of its files are missing, {lacking[0]} among them")
        folder = root / ARCHIVES if download.unpack else target
        report(f"{download.file}: from {download.url}")
        path = fetch(download, folder, progress)
        if download.unpack:
            report(f"{download.file}: checksum right, unpacking into {target}")
            members = unpack(path, download.unpack, target)
            write_whole(done, json.dumps({"checksum": download.checksum, "members": members}))
            path.unlink()


def _lacking(marker: Any, download: Download, target: Path) -> list[str] | None:
    """Return the files of an unpacked archive that are not there in full, None if it was not unpacked."""
    sizes = marker.get("members") if isinstance(marker, dict) else None
    if not isinstance(sizes, dict) or marker.get("checksum") != download.checksum:
        return None
    return [name for name, size in sizes.items() if state(str(target / name))[:1] != [size]]


def outstanding(downloads: Sequence[Download], root: Path) -> tuple[Download, ...]:
    """Return the downloads that are not there in full yet.

    Args:
        downloads: All that are meant.
        root: Data folder.
    """

    def there(one: Download) -> bool:
        if one.unpack:
            done = read_kept(root / ARCHIVES / f"{one.file}.done")
            return _lacking(done, one, root / one.into) == []
        return (root / one.into / one.file).is_file()

    return tuple(one for one in downloads if not there(one))


def free_bytes(root: Path) -> int:
    """Return the room on the disk of a folder that may not be there yet.

    Raises:
        BadInputError: If no folder above it can be looked into.
    """
    above = next((place for place in (root, *root.absolute().parents) if place.is_dir()), root)
    try:
        return shutil.disk_usage(above).free
    except OSError as error:
        raise _unwritable(root, error) from error


def check_room(downloads: Sequence[Download], root: Path) -> None:
    """Refuse downloads that the disk has no room for; an unpacked archive is as large again, as images do not shrink.

    Raises:
        BadInputError: With what is needed and what there is.
    """
    largest = max((one.size for one in downloads if one.unpack), default=0)
    needed, free = sum(one.size for one in downloads) + largest, free_bytes(root)
    if needed > free:
        raise BadInputError(
            f"{in_words(needed)} are needed in {root}, which has room for {in_words(free)}; free space or choose "
            "another folder with root=",
            options=("root",),
        )


def in_words(size: int) -> str:
    """Return bytes as people say them."""
    if size >= GIB // 10:
        return f"{size / GIB:,.1f} GiB"
    return f"{size / (1 << 20):,.1f} MiB"


def total_size(downloads: Sequence[Download]) -> str:
    """Return how much there is to fetch, in words."""
    size = sum(download.size for download in downloads)
    unknown = sum(not download.size for download in downloads)
    known = in_words(size) if size else ""
    more = f"{unknown} file{'s' if unknown > 1 else ''} of unpublished size" if unknown else ""
    return " and ".join(part for part in (known, more) if part)


def _unwritable(root: Path, error: OSError) -> BadInputError:
    return BadInputError(
        f"the data folder must be one that can be written, got {root} ({error.strerror}); choose another with root=",
        options=("root",),
    )
