# SPDX-License-Identifier: Apache-2.0
"""Reading golden folders: a ``manifest.json`` that names the family, and arrays in ``.npz`` files."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tta_bench.errors import BadInputError


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        BadInputError: If there is no such file or it holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInputError(f"expected a JSON file, got {str(path)!r}: {error}; check the folder") from error
    if not isinstance(content, dict):
        raise BadInputError(f"{path} must hold a JSON object, got {type(content).__name__}; check the file")
    return content


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Return all numeric arrays of an ``.npz`` file as tensors, in order of their names.

    Raises:
        BadInputError: If there is no such file or it cannot be read.
    """
    found = _read(path)
    return {name: torch.from_numpy(found[name]) for name in sorted(found) if found[name].dtype.kind != "U"}


def read_texts(path: Path, name: str) -> list[str]:
    """Return one array of texts of an ``.npz`` file.

    Raises:
        BadInputError: If there is no such file or array, or it cannot be read.
    """
    texts: list[str] = entry(_read(path), name, str(path)).tolist()
    return texts


def _read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInputError(f"expected an .npz file, got {str(path)!r}: {error}; check the folder") from error


def below(arrays: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the arrays whose names start with a prefix, by the rest of their names."""
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def entry(mapping: Mapping[str, Any], name: str, where: str) -> Any:
    """Return one entry of golden material.

    Raises:
        BadInputError: If it is missing.
    """
    if name not in mapping:
        raise BadInputError(
            f"{name!r} is missing from {where}; the folder is incomplete or of another format"
        )
    return mapping[name]


class Entries(dict[str, Any]):
    """Entries of golden material by name, of which a missing one is refused as by `entry`.

    Args:
        entries: By name.
        where: What they are entries of, for the error.
    """

    def __init__(self, entries: Mapping[str, Any], where: str) -> None:
        super().__init__(entries)
        self.where = where

    def __missing__(self, name: str) -> Any:
        """Refuse a name that is not there."""
        return entry(self, name, self.where)
