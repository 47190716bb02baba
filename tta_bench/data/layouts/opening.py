# SPDX-License-Identifier: Apache-2.0
"""Opens a declared dataset: finds its folder, or says in one sentence what is missing and what helps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tta_bench import registry
from tta_bench.data.catalogue.declare import files_of
from tta_bench.data.catalogue.files import Files
from tta_bench.data.dataset import Dataset, OpenRequest, Shift
from tta_bench.data.layouts.corrupted import MANIFEST, read_manifest
from tta_bench.data.layouts.locate import DATA_VARIABLE, candidates, roots, tried
from tta_bench.data.layouts.reading import (
    AS_DISTRIBUTED,
    Generated,
    Reading,
    checked_options,
    corruption_options,
    generated_origin,
    photographs,
)
from tta_bench.data.layouts.walk import Entry, entries
from tta_bench.errors import BadInputError

if TYPE_CHECKING:
    from tta_bench.data.images.source import ImageSource

_GENERATED = "generated from {}"
V2_BASES = ("imagenetv2-{corruption}-format-val", "imagenetv2-{corruption}", "{corruption}", ".")
"""Where the class folders of ImageNet-V2 may lie."""


def open_files(files: Files, opening: OpenRequest) -> ImageSource:
    """Return the images of one shift of a dataset.

    Raises:
        BadInputError: If its files are not there, or are not what they should be.
    """
    options = checked_options(opening.options)
    shift = opening.shift
    root = None if files.generates else find(files, shift)
    if root is None and files.clean is not None and (clean := find(files.clean, shift)) is not None:
        return files.clean.layout.open(clean, shift, _generating(files, opening, options))
    if root is None:
        raise missing(files, shift)
    return files.layout.open(root, shift, _reading(files, shift, options, origin=_origin(root)))


def require_one_origin(dataset: Dataset, shifts: Sequence[Shift]) -> None:
    """Refuse corrupted shifts of which some are distributed and others are generated: no row may average over both.

    Args:
        dataset: A dataset; one that is not kept in files has one origin.
        shifts: Those that are going to run.

    Raises:
        BadInputError: If their images came about in different ways.
    """
    files = files_of(dataset)
    if files is None or files.clean is None or files.generates:
        return
    found: dict[str, Shift] = {}
    for shift in shifts:
        if shift.severity:
            root = find(files, shift)
            found.setdefault(_GENERATED.format(files.clean.name) if root is None else _origin(root), shift)
    if len(found) > 1:
        told = " and ".join(f"{origin} ({shift})" for origin, shift in found.items())
        raise BadInputError(
            f"the shifts of a row should come about in one way, and those of {dataset.name} are {told}; complete the "
            "folder, or name the corruptions of one kind, or use allow_incomplete=True, and the rows are marked",
            options=("allow_incomplete",),
        )


def is_here(dataset: Dataset) -> bool:
    """Return whether any shift of a dataset that is kept in files is found in the data folders."""
    files = files_of(dataset)
    shifts = dataset.shifts(("all",) if dataset.corruptions else ())
    return files is not None and any(find(files, shift) for shift in shifts)


def here() -> list[str]:
    """Return the names of the registered datasets that are found in the data folders."""
    datasets = ((name, registry.load("datasets", name)) for name in registry.registered("datasets"))
    return [name for name, one in datasets if isinstance(one, Dataset) and is_here(one)]


def _reading(files: Files, shift: Shift, options: dict[str, Any], **more: Any) -> Reading:
    return Reading(
        expected=files.count(shift),
        allow_incomplete=bool(options.get("allow_incomplete")),
        border=files.border,
        cropped=files.cropped,
        workers=options.get("workers"),
        bad_image=options.get("bad_image", "stop"),
        subsets=files.subsets,
        **more,
    )


def _origin(root: Path) -> str:
    """Return how the images of a folder were made, as their manifest says it if there is one."""
    path = root / MANIFEST
    if not path.is_file():
        return AS_DISTRIBUTED
    manifest = read_manifest(path)
    settings = ", ".join(
        f"{name} {value}" for name, value in manifest["settings"].items() if name != "options"
    )
    return f"written by tta-bench data corrupt {manifest.get('tta_bench', '')} ({settings})"


def _generating(files: Files, opening: OpenRequest, options: dict[str, Any]) -> Reading:
    """Return the reading that corrupts clean images while they are loaded."""
    assert files.clean is not None
    shift = opening.shift
    chosen = corruption_options(options, files.defaults)
    generated = Generated(shift.corruption, shift.severity, opening.seed, files.first, chosen)
    origin = generated_origin(files.clean.name, photographs(chosen))
    return _reading(files, opening.shift, options, generated=generated, origin=origin)


def find(files: Files, shift: Shift) -> Path | None:
    """Return the folder that holds a shift of a dataset, None if there is none."""
    return next((path for path in candidates(files.folders) if files.layout.present(path, shift)), None)


def missing(files: Files, shift: Shift) -> BadInputError:
    """Return the error of a shift whose files are not there, with what was found instead."""
    helps = f"`tta-bench data prepare {files.public}` fetches them or tells how to get them"
    for path in candidates(files.folders):
        if (advice := misplaced(files, path, shift)) is not None:
            return BadInputError(f"{path} is not laid out as {files.name}: {advice}")
    present = [path for path in candidates(files.folders) if path not in roots()]
    if present:
        return BadInputError(
            f"{shift} needs {present[0] / files.layout.expects(shift)}, which is not there; {helps}"
        )
    clean = None if files.generates else files.clean
    source = f", nor are those of {clean.name} at {', '.join(tried(clean.folders))}" if clean else ""
    return BadInputError(
        f"the files of {files.name} are not at {', '.join(tried(files.folders))}{source}; {helps}, or point "
        f"{DATA_VARIABLE} at the folder that holds them"
    )


def _by_wnid(files: Files, path: Path, shift: Shift) -> Path | None:
    """Return the folder of ImageNet-V2 whose class folders bear wnids instead of label numbers, None if none does."""
    if files.name != "imagenet-v2":
        return None
    places = (path / base.format(corruption=shift.corruption) for base in V2_BASES)
    return next((place for place in places if any(_is_wnid(entry) for entry in _entries(place))), None)


def _entries(place: Path) -> list[Entry]:
    return entries(place) if place.is_dir() else []


def _is_wnid(entry: Entry) -> bool:
    return entry.folder and re.fullmatch(r"n\d{8}", entry.name) is not None


def misplaced(files: Files, path: Path, shift: Shift) -> str | None:
    """Return how to fix a folder whose content lies elsewhere, None if nothing is recognised."""
    for child in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        if child.name != "train" and files.layout.present(child, shift):
            return f"its content is one folder too deep; fix it with `mv {child}/* {path}/`"
    if (named := _by_wnid(files, path, shift)) is not None:
        return (
            f"{named} names its class folders by wnid, and the official ones are the numbers 0 to 999; rename each to "
            f"the label of its wnid, or unpack the official archive (`tta-bench data prepare {files.public}`)"
        )
    flat = sorted(path.rglob("ILSVRC2012_val_*"))[:1] if files.name == "imagenet" else []
    if flat:
        return (
            f"{flat[0].parent} holds images without class folders, so their labels are unknown; put "
            f"ILSVRC2012_devkit_t12 or LOC_val_solution.csv into {path}, or sort the images into class folders"
        )
    return None
