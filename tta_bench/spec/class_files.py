# SPDX-License-Identifier: Apache-2.0
"""Files that name the outputs of a model, or map classes to them. No torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from tta_bench.errors import BadInputError

HEADER = ("folder", "output")
"""The first line that a file of a class map may have."""


def read_class_names(given: Any) -> Any:
    """Return class names in the order of the outputs, from a file where one is named.

    Args:
        given: A path, or the names themselves. The file has one name per line, or is JSON: a list, names by number as
            in ``{"0": "cat"}``, or numbers by name as in ``{"cat": 0}``.

    Raises:
        BadInputError: If the file cannot be read or does not name outputs 0 to N - 1.
    """
    path = _path(given)
    if path is None:
        return given
    text = _text(path, "class_names")
    if path.suffix.lower() == ".json":
        names = named_outputs(_json(path, text, "class_names"))
        if names is None:
            raise BadInputError(
                f'{path} must hold a list of names, or names by number as in {{"0": "cat"}}, 0 to N - 1; complete it'
            )
        return names
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(names) < 2:
        raise BadInputError(
            f"{path} must name the outputs of a model, one per line, two at least, got {len(names)}; complete it"
        )
    return names


def _path(given: Any) -> Path | None:
    """Return the file that was named, alone or as the only one of a list; None if none was."""
    alone = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
    return Path(alone).expanduser() if isinstance(alone, str | PathLike) else None


def named_outputs(content: Any) -> tuple[str, ...] | None:
    """Return names in the order of their outputs: from a list, names by number, or numbers by name; None from else."""
    if isinstance(content, list | tuple) and content and all(isinstance(one, str) for one in content):
        return tuple(content)
    if not isinstance(content, Mapping) or not content:
        return None
    swapped = all(isinstance(value, int) and not isinstance(value, bool) for value in content.values())
    pairs = [(value, key) if swapped else (key, value) for key, value in content.items()]
    if not all(str(number).isdecimal() and isinstance(name, str) for number, name in pairs):
        return None
    by_number = {int(number): name for number, name in pairs}
    if len(by_number) != len(pairs) or sorted(by_number) != list(range(len(by_number))):
        return None
    return tuple(by_number[number] for number in range(len(by_number)))


def read_class_map(given: Any) -> Any:
    """Return which output of a model stands for each class, from a file where one is named.

    Args:
        given: A path, or a mapping. The file is JSON, ``{"tabby": 281}``, or has lines ``folder,output``.

    Raises:
        BadInputError: If the file cannot be read or is none of these.
    """
    if isinstance(given, Mapping):
        return {str(key): _output(value) for key, value in given.items()}
    path = _path(given)
    if path is None:
        return given
    text = _text(path, "class_map")
    if path.suffix.lower() == ".json":
        content = _json(path, text, "class_map")
        if not isinstance(content, Mapping):
            raise BadInputError(
                f'{path} must map classes to outputs as in {{"tabby": 281}}, got {text[:40]!r}'
            )
        return {str(key): _output(value) for key, value in content.items()}
    return _pairs(path, text)


def _output(value: Any) -> str:
    """Return the text that stands for one output, or for several of which the largest counts."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return ";".join(str(one) for one in value) if several else str(value)


def _pairs(path: Path, text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and tuple(map(str.lower, cells)) == HEADER):
            continue
        if len(cells) != 2 or not all(cells):
            raise BadInputError(
                f"line {number} of {path} must be a class folder and the output that stands for it, as in "
                f"'tabby,281', got {','.join(row)!r}"
            )
        if cells[0] in found:
            raise BadInputError(f"line {number} of {path} maps {cells[0]!r} a second time; keep one line")
        found[cells[0]] = cells[1]
    if not found:
        raise BadInputError(f"{path} must have lines such as 'tabby,281', got none")
    return found


def _text(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise BadInputError(
            f"{option} expects a file, got {str(path)!r}, which {why}; check the path", options=(option,)
        ) from error


def _json(path: Path, text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{option} expects JSON in {path}, but {error}", options=(option,)) from error
