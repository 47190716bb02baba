# SPDX-License-Identifier: Apache-2.0
"""Datasets and models of single files, known by name to the process that loaded the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tta_bench import registry
from tta_bench.data.dataset import Dataset
from tta_bench.errors import PluginError
from tta_bench.registry import FilePoint, Group

MODELS = "MODELS"
"""The attribute of a file that maps names to loaders of models."""


def register(path: Path, module: ModuleType) -> list[str]:
    """Make the datasets and models of a file known to this process, and return their names.

    A dataset is every `tta_bench.data.dataset.Dataset` in the file, by its ``name``, but for those of packages; models
    are the loaders in its mapping ``MODELS``, by their keys, each as the entry-point group ``tta_bench.models`` has
    them.

    Args:
        path: The file.
        module: What it was imported as.

    Raises:
        PluginError: If a name is that of a registered object or of another file, or ``MODELS`` holds no loaders.
    """
    found: list[tuple[Group, str, Any, str]] = [
        ("datasets", value.name, value, value.title)
        for value in vars(module).values()
        if isinstance(value, Dataset) and not _known(value)
    ]
    for name, loader in _models(path, module).items():
        found.append(("models", name, loader, (loader.__doc__ or "").partition("\n")[0]))
    for group, name, value, title in found:
        registry.add(group, FilePoint(name, module.__name__, str(path.resolve()), title, value))
    return [name for _, name, _, _ in found]


def _known(dataset: Dataset) -> bool:
    """Return whether a file's dataset is one that a package registers, which the file merely imports."""
    point = registry.registered("datasets").get(dataset.name)
    return point is not None and not isinstance(point, FilePoint) and point.load() is dataset


def _models(path: Path, module: ModuleType) -> Mapping[str, Any]:
    models = getattr(module, MODELS, {})
    if not isinstance(models, Mapping) or not all(callable(one) for one in models.values()):
        raise PluginError(
            f"{MODELS} of {path} must map names to functions that load a model, got {type(models).__name__}; see the "
            "entry-point group tta_bench.models"
        )
    return {str(name): loader for name, loader in models.items()}


def files_behind(**names: str) -> Iterable[str]:
    """Return the files that the given names come from, of ``datasets`` and ``models`` by group."""
    for group, name in names.items():
        point = registry.registered(group).get(name)  # type: ignore[arg-type]
        if isinstance(point, FilePoint):
            yield point.path
