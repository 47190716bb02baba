# SPDX-License-Identifier: Apache-2.0
"""Read the options of a run from a YAML file, with an error that names the key and the value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.spec import Request
from tta_bench.spec.options import options_of


def read_config(path: Path) -> dict[str, Any]:
    """Return the options that a YAML file gives.

    Raises:
        BadInputError: If the file is missing, is not YAML, or holds a value of the wrong type.
        UnknownNameError: If it holds a key that is no option.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise BadInputError(
            f"config expects a YAML file, got {str(path)!r}, which does not exist", options=("config",)
        ) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise BadInputError(
            f"config expects YAML, but {path} cannot be read: {problem}", options=("config",)
        ) from error
    if not isinstance(content, dict):
        raise BadInputError(
            f"{path} must hold options such as 'methods: [apm]', got {type(content).__name__}"
        )
    return read_options(content, str(path))


def read_options(content: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return the options of a run in a mapping that was read from a file; what is null was not given.

    Args:
        content: Option names to values.
        where: Name of the file, for the message.

    Raises:
        BadInputError: For the first value of the wrong type.
        UnknownNameError: For a key that is no option.
    """
    known = options_of(Request)
    found = {}
    for key, value in content.items():
        if key not in known:
            raise UnknownNameError(f"option in {where}", str(key), known)
        if value is not None:
            try:
                found[key] = known[key].read(value)
            except BadInputError as error:
                problem = str(error).removeprefix(key).strip()
                raise BadInputError(f"option {key} in {where} {problem}") from error
    return found
