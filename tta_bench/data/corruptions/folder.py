# SPDX-License-Identifier: Apache-2.0
"""Write corrupted copies of a folder of images, laid out as ImageNet-C is."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import torch

from tta_bench import __version__
from tta_bench.data.corruptions.base import Options
from tta_bench.data.corruptions.constants import CORRUPTIONS, GROUPS, SEVERITIES, Scale
from tta_bench.data.corruptions.copying import Copying, Done, FileFormat
from tta_bench.data.corruptions.registry import REGISTRY
from tta_bench.data.layouts.base import read_text
from tta_bench.data.layouts.corrupted import MANIFEST, read_manifest
from tta_bench.data.layouts.walk import EXTENSIONS, images_below
from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.spec.whole import write_whole

SUMS: Final = "SHA256SUMS"

Progress = Callable[[int, int], None]


class LeftOut(NamedTuple):
    """An image that could not be used: its path relative to the source folder, and why."""

    file: str
    reason: str


class FolderReport(NamedTuple):
    """A summary of the files written.

    Attributes:
        images: Images in the source folder that were corrupted.
        files: Corrupted files in the target folder, those of earlier runs included.
        written: Files that this run wrote; the others were there.
        left_out: Images that could not be used.
    """

    images: int
    files: int
    written: int
    left_out: tuple[LeftOut, ...]


def expand_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return corruption names, with ``all`` for the fifteen and a group's name for its members.

    Raises:
        UnknownNameError: For a name that is neither.
    """
    groups = {"all": CORRUPTIONS, **GROUPS}
    found: dict[str, None] = {}
    for name in names:
        if name not in groups and name not in REGISTRY:
            raise UnknownNameError("corruption", name, [*REGISTRY, *groups])
        found.update(dict.fromkeys(groups.get(name, (name,))))
    return tuple(found)


def corrupt_folder(
    src: Path,
    dst: Path,
    names: Sequence[str],
    severities: Sequence[int],
    seed: int = 0,
    workers: int = 1,
    *,
    scale: Scale | None = None,
    options: Options | None = None,
    resize: int | None = None,
    crop: int | None = None,
    file_format: FileFormat = "png",
    on_bad_image: Literal["stop", "skip"] = "stop",
    progress: Progress | None = None,
) -> FolderReport:
    """Write ``dst/corruption/severity/...`` for every image below ``src``, keeping the folder structure.

    An image's id is its path relative to ``src`` without the suffix, so the result does not depend on the other
    images, on their format or on the number of workers. What is already there is kept: the same call resumes where a
    killed one stopped, and more corruptions can be added later. ``manifest.json`` says how the files were made,
    ``SHA256SUMS`` lists their hashes (check with ``sha256sum -c``).

    Args:
        src: Folder of images.
        dst: Target folder; made if needed.
        names: Names of corruptions, of groups, or ``all`` for the fifteen.
        severities: Any of 1 to 5.
        seed: Seed of the corrupted data set.
        workers: Processes; 1 works in this one.
        scale: Constants, as for `corrupt`.
        options: Published variants, as for `corrupt`.
        resize: Length of the shorter side before the crop, pixels; None: as it is.
        crop: Side of the centre crop before the corruption, pixels; None: no crop.
        file_format: ``"png"`` keeps the pixels; ``"jpeg"`` saves at quality 85 as ImageNet-C was distributed.
        on_bad_image: Stop at an image that cannot be decoded, or leave it out.
        progress: Called with the number of finished and of all images.

    Raises:
        UnknownNameError: For an unknown corruption, group or option.
        BadInputError: If the folders, the severities or an image are not as described, or if ``dst`` holds files
            that were made in another way.
    """
    chosen = expand_names(names)
    for severity in severities:
        if severity not in SEVERITIES:
            raise BadInputError(f"severities must be integers from 1 to 5, got {severity!r}; leave it out")
    files = _find(src, dst)
    copying = Copying(
        src, dst, chosen, tuple(severities), seed, scale, options or Options(), resize, crop, file_format
    )
    _refuse_clashes(files, copying)
    manifest = _open_manifest(dst, copying)
    done = _work(copying, files, workers, on_bad_image, progress)
    return _finish(dst, manifest, copying, done)


def _find(src: Path, dst: Path) -> list[str]:
    if not src.is_dir():
        raise BadInputError(f"the source must be a folder of images, got {str(src)!r}; check the path")
    if dst.resolve().is_relative_to(src.resolve()):
        raise BadInputError(
            f"the target {str(dst)!r} lies inside the source {str(src)!r}; choose another folder"
        )
    files = images_below(src, nested=True)
    flat = [file for file in files if "/" not in file]
    if flat:
        raise BadInputError(
            f"{str(src)!r} holds {len(flat)} images outside class folders ({flat[0]}), so their copies would have no "
            "labels; sort them into one folder per class first. For ImageNet's flat validation set, `tta-bench run "
            "--dataset imagenet-c` reads the labels of the development kit and corrupts while loading"
        )
    if not files:
        raise BadInputError(
            f"no images found below {str(src)!r}; expected files like {', '.join(sorted(EXTENSIONS))}"
        )
    return sorted(files)


def _refuse_clashes(files: list[str], copying: Copying) -> None:
    seen: dict[str, str] = {}
    for file in files:
        other = seen.setdefault(copying.renamed(file), file)
        if other != file:
            raise BadInputError(f"{other!r} and {file!r} would get the same name in the target; rename one")


def _open_manifest(dst: Path, copying: Copying) -> dict[str, Any]:
    """Write the manifest of a new target; of an old one, check that it was made in the same way."""
    path = dst / MANIFEST
    settings = json.loads(json.dumps(copying.settings(), default=str))
    manifest: dict[str, Any] = {"schema_version": 1, "status": "running", "settings": settings}
    if path.exists():
        manifest = read_manifest(path)
        different = [key for key, value in settings.items() if manifest["settings"].get(key) != value]
        if different:
            raise BadInputError(
                f"{str(dst)!r} was made with another {' and '.join(different)}; choose another target folder"
            )
    elif dst.is_dir() and any(dst.iterdir()):
        raise BadInputError(f"the target {str(dst)!r} has files but no {MANIFEST}; choose an empty folder")
    manifest |= {"status": "running", "tta_bench": __version__}
    try:
        dst.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(manifest, indent=2) + "\n")
    except OSError as error:
        raise BadInputError(
            f"the target {str(dst)!r} must be a folder that can be written, but {error}; choose another"
        ) from error
    return manifest


def _work(
    copying: Copying, files: list[str], workers: int, on_bad_image: str, progress: Progress | None
) -> list[Done]:
    done = []
    for one in _map(copying, files, workers):
        if one.bad and on_bad_image == "stop":
            raise BadInputError(f"{one.bad}; replace the file, or leave such images out")
        done.append(one)
        if progress:
            progress(len(done), len(files))
    return done


def _map(copying: Copying, files: list[str], workers: int) -> Iterator[Done]:
    if workers <= 1:
        yield from map(copying, files)
        return
    # Fresh processes: a forked one would inherit the threads of this one in an unknown state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        try:
            yield from pool.map(copying, files, chunksize=4)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _finish(dst: Path, manifest: dict[str, Any], copying: Copying, done: list[Done]) -> FolderReport:
    sums = _read_sums(dst / SUMS)
    for one in done:
        sums.update(one.sums)
    text = "".join(f"{value}  {name}\n" for name, value in sorted(sums.items()))
    write_whole(dst / SUMS, text)
    left_out = tuple(LeftOut(one.file, one.bad) for one in done if one.bad)
    manifest |= {
        "status": "complete",
        "corruptions": sorted({*manifest.get("corruptions", ()), *copying.names}),
        "severities": sorted({*manifest.get("severities", ()), *copying.severities}),
        "images": len(done) - len(left_out),
        "left_out": [one.file for one in left_out],
        "files": len(sums),
        "sums_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    write_whole(dst / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    written = sum(one.written for one in done)
    return FolderReport(len(done) - len(left_out), len(sums), written, left_out)


def _read_sums(path: Path) -> dict[str, str]:
    lines = read_text(path).splitlines() if path.exists() else []
    return {name: value for value, _, name in (line.partition("  ") for line in lines)}
