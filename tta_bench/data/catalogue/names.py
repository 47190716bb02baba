# SPDX-License-Identifier: Apache-2.0
"""Class lists: from small text files here, and for ImageNet from the packages that publish them."""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tta_bench.errors import PluginError
from tta_bench.prompts import open_clip_lists

HERE = Path(__file__).parent / "names"


class Classes(NamedTuple):
    """The classes of a dataset in label order.

    Attributes:
        folders: What they are called on disk.
        names: How they enter prompts.
    """

    folders: tuple[str, ...]
    names: tuple[str, ...]


def columns(name: str) -> list[list[str]]:
    """Return the tab-separated columns of a class list, one row per class in label order."""
    lines = (HERE / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines]


def classes(name: str) -> Classes:
    """Return the classes of a list: folder name, and the prompt's name where it is not the same with spaces."""
    rows = columns(name)
    return Classes(tuple(row[0] for row in rows), tuple(spaced(row[-1]) for row in rows))


def spaced(name: str) -> str:
    """Return a folder's name as it is said in a prompt."""
    return name.replace("_", " ")


def is_wnid(name: str) -> bool:
    """Return whether a name is a WordNet id such as ``n01440764``."""
    return re.fullmatch(r"n\d{8}", name) is not None


def _package_folder(package: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise PluginError(
            f"the ImageNet class list comes from the package {package!r}, which is not installed"
        )
    return Path(next(iter(spec.submodule_search_locations)))


@lru_cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the 1,000 wnids in label order, from timm."""
    return _timm("imagenet_synsets.txt")


def imagenet_indices(part: str) -> tuple[int, ...]:
    """Return the labels that ImageNet-A (``"a"``) or ImageNet-R (``"r"``) keeps, in order, from timm."""
    return tuple(int(line) for line in _timm(f"imagenet_{part}_indices.txt"))


def _timm(file: str) -> tuple[str, ...]:
    path = _package_folder("timm") / "data" / "_info" / file
    return tuple(path.read_text(encoding="utf-8").split())


def imagenet_names() -> tuple[str, ...]:
    """Return the 1,000 class names that CLIP models are prompted with, from open_clip."""
    return open_clip_lists()[0]
