# SPDX-License-Identifier: Apache-2.0
"""Datasets that the user provides: a folder of images, a Hugging Face dataset, WebDataset shards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tta_bench.data.catalogue.common import COMMON, EXTRA
from tta_bench.data.catalogue.names import imagenet_names, imagenet_wnids, is_wnid, spaced
from tta_bench.data.dataset import Dataset, OpenRequest, Shift
from tta_bench.data.layouts.base import read_text
from tta_bench.data.layouts.listed import Listed, read_listed
from tta_bench.data.layouts.own import own_classes
from tta_bench.data.layouts.reading import (
    AS_DISTRIBUTED,
    Generated,
    Reading,
    checked_options,
    corruption_options,
    generated_origin,
    photographs,
)
from tta_bench.data.layouts.tree import ClassTree
from tta_bench.errors import BadInputError
from tta_bench.prompts import PHOTO

if TYPE_CHECKING:
    from tta_bench.data.images.source import ImageSource

NAMES_FILE = "classnames.txt"


def folder(rest: str) -> tuple[Dataset, str]:
    """Read any folder with one folder of images per class, or a CSV file of paths and labels: folder:PATH[:fog:3].

    Classes are the folders in the order of their names, and corruptions are generated while loading. A file may have
    several splits, of which ``test`` is read or the one that is named, as in folder:labels.csv:val.

    Args:
        rest: The path, and what the shift is.

    Raises:
        BadInputError: If there is no such folder, or it holds something else than class folders with images.
    """
    written, shift = _split(rest)
    path = os.path.normpath(written) if written else ""
    if ".csv" in path.lower() and not Path(path).expanduser().is_dir():
        return _listed(path), shift
    if not path or not Path(path).expanduser().is_dir():
        raise BadInputError(
            "folder:PATH expects a folder with one folder of images per class, or a CSV file with the columns path and "
            f"label, got {written!r}, which is not there; check the path"
        )
    classes = own_classes(Path(path).expanduser())
    layout = ClassTree(classes, nested=True)
    dataset = _family(f"folder:{path}", classes, _OpenFolder(Path(path).expanduser(), layout))
    return _matched(dataset, classes), shift


def _listed(written: str) -> Dataset:
    """Return the dataset of a CSV file of paths and labels, and of one of its splits."""
    head, _, tail = written.rpartition(":")
    path, split = (head, tail) if head.lower().endswith(".csv") else (written, "")
    table = read_listed(Path(path).expanduser(), split)
    name = f"folder:{path}" + (f":{table.split}" if table.split else "")
    return _matched(_family(name, table.classes, _OpenTable(table)), table.classes)


def _matched(dataset: Dataset, folders: Sequence[str]) -> Dataset:
    """Return a dataset whose classes are matched with a model's outputs by what they are called on disk."""
    names = dataset.class_names
    if all(map(is_wnid, folders)) and set(folders) <= set(imagenet_wnids()):
        by_wnid = dict(zip(imagenet_wnids(), imagenet_names(), strict=True))
        names = tuple(by_wnid[one] for one in folders)
    return replace(dataset, class_folders=tuple(folders), class_names=names)


def hf(rest: str) -> tuple[Dataset, str]:
    """Read a Hugging Face dataset with an image and a label column: hf:ORG/NAME or hf:ORG/NAME:SPLIT.

    Args:
        rest: Repository or local folder, the split (``test`` by default), and what the shift is.

    Raises:
        BadInputError: If the package ``datasets`` is missing, or the data have no image and class label columns.
    """
    from tta_bench.data.layouts.hub import hub_classes, open_hub

    name, shift = _split(rest)
    repository, _, split = name.partition(":")
    if not repository:
        raise BadInputError("hf:REPO expects a repository such as hf:org/name:test, got nothing after hf:")
    split = split or "test"
    names = hub_classes(repository, split)
    return _family(f"hf:{repository}:{split}", names, _OpenWith(open_hub, (repository, split))), shift


def wds(rest: str) -> tuple[Dataset, str]:
    """Read WebDataset shards, tar files with images and .cls labels: wds:FOLDER with a classnames.txt.

    Args:
        rest: The folder (or one tar file), and what the shift is.

    Raises:
        BadInputError: If there are no shards or no class names.
    """
    from tta_bench.data.layouts.shards import open_shards, shards_in

    path, shift = _split(rest)
    place = Path(path).expanduser()
    shards = shards_in(place)
    beside = place if place.is_dir() else place.parent
    near = (folder / NAMES_FILE for folder in (beside, *beside.absolute().parents[:2]))
    names = next((file for file in near if file.is_file()), None)
    if names is None:
        raise BadInputError(
            f"{path} has no {NAMES_FILE}, so its labels have no names; write one beside the shards, one class per "
            "line in label order"
        )
    listed = tuple(line.strip() for line in read_text(names).splitlines() if line.strip())
    if len(listed) < 2:
        raise BadInputError(
            f"{names} must name two classes at least, one per line, got {len(listed)}; complete it"
        )
    return _family(f"wds:{path}", listed, _OpenWith(open_shards, (shards, len(listed)))), shift


def _split(rest: str) -> tuple[str, str]:
    """Split a path, which may hold colons, from the corruption and severity at its end."""
    words = rest.split(":")
    known = {*COMMON, *EXTRA, "all"}
    for length in (1, 2):
        tail = words[-length:]
        if len(words) > length and tail[0] in known:
            return ":".join(words[:-length]), ":".join(tail)
    return rest, ""


@dataclass(frozen=True)
class OwnImages(Dataset):
    """Images of the user's own: as they are, or under the corruptions that are asked for."""

    def shifts(self, corruptions: Sequence[str] = (), severities: Sequence[int] = (5,)) -> tuple[Shift, ...]:
        """Return the corruptions that are named, and the images as they are where none is.

        Raises:
            UnknownNameError: For an unknown corruption.
        """
        return super().shifts(corruptions, severities) if corruptions else (Shift(self.name),)


def _family(name: str, classes: Sequence[str], opens: Any) -> Dataset:
    return OwnImages(
        name=name,
        title=f"images of the user's own, {len(classes)} classes",
        class_names=tuple(spaced(one) for one in classes),
        open=opens,
        corruptions=COMMON + EXTRA,
        default_corruptions=COMMON,
        templates=PHOTO,
        licence="the user's own",
    )


def reading_of(opening: OpenRequest) -> Reading:
    """Return how the user's own images are read: the model's resize and crop first, then the corruption."""
    options = checked_options(opening.options)
    shift = opening.shift
    chosen = corruption_options(options)
    generated = Generated(shift.corruption, shift.severity, opening.seed, None, chosen)
    return Reading(
        generated=generated if shift.corruption else None,
        workers=options.get("workers"),
        bad_image=options.get("bad_image", "stop"),
        origin=generated_origin("the user's images", photographs(chosen))
        if shift.corruption
        else AS_DISTRIBUTED,
    )


@dataclass(frozen=True)
class _OpenFolder:
    """Opens a folder of images."""

    path: Path
    layout: ClassTree

    def __call__(self, opening: OpenRequest) -> ImageSource:
        if not self.layout.present(self.path, opening.shift):
            raise BadInputError(f"{self.path} holds no class folder any more; check the path")
        return self.layout.open(self.path, opening.shift, reading_of(opening))


@dataclass(frozen=True)
class _OpenTable:
    """Opens the images that a CSV file lists."""

    table: Listed

    def __call__(self, opening: OpenRequest) -> ImageSource:
        return self.table.open(self.table.file.parent, opening.shift, reading_of(opening))


@dataclass(frozen=True)
class _OpenWith:
    """Opens what a function reads, given its arguments, the shift and the reading."""

    function: Any
    arguments: tuple[Any, ...]

    def __call__(self, opening: OpenRequest) -> ImageSource:
        images: ImageSource = self.function(*self.arguments, opening.shift, reading_of(opening))
        return images
