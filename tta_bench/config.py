# SPDX-License-Identifier: Apache-2.0
"""Read the options of a run from a YAML file, with an error that names the key and the value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, StrictInt, ValidationError

from tta_bench.errors import BadInputError, UnknownNameError

M = TypeVar("M", bound=BaseModel)


class Options(BaseModel):
    """The keys of a configuration file; the same as the long options, in the plural where they repeat.

    ``presets`` names a preset for single methods: ``presets: {rmt: pocket}``.
    """

    model_config = ConfigDict(extra="forbid")

    methods: list[str] | None = None
    datasets: list[str] | None = None
    models: list[str] | None = None
    corruptions: list[str] | None = None
    severities: list[StrictInt | str] | None = None
    limit: StrictInt | None = None
    subset: str | None = None
    batch_size: StrictInt | None = None
    seeds: list[StrictInt] | None = None
    reset: str | None = None
    settings: list[str] | None = None
    preset: str | None = None
    presets: dict[str, str] | None = None
    chosen: str | None = None
    device: str | None = None
    precision: str | None = None
    pretrained: bool | None = None
    prompts: str | None = None
    bad_image: str | None = None
    workers: StrictInt | None = None
    emulate_distributed: bool | None = None
    elastic: str | None = None
    frost_dir: str | None = None


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
            f"--config expects a YAML file, got {str(path)!r}, which does not exist"
        ) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise BadInputError(f"--config expects YAML, but {path} cannot be read: {problem}") from error
    if not isinstance(content, dict):
        raise BadInputError(
            f"{path} must hold options such as 'methods: [apm]', got {type(content).__name__}"
        )
    for key in content:
        if key not in Options.model_fields:
            raise UnknownNameError(f"option in {path}", str(key), Options.model_fields)
    return validated(Options, content, str(path)).model_dump(exclude_none=True)


def validated(model: type[M], content: Any, where: str) -> M:
    """Return the content of a YAML file as a model.

    Raises:
        BadInputError: With the first key whose value does not fit.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BadInputError(f"option {key} in {where}: {first['msg']}, got {first['input']!r}") from error


def merged(levels: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one set of options from several, of which each wins over those before it.

    ``limit`` and ``subset`` stand for each other, and so do ``preset`` and ``presets``: a later one replaces
    either.

    Raises:
        BadInputError: If one set holds both a limit and a subset.
    """
    values: dict[str, Any] = {}
    for level in levels:
        if {"limit", "subset"} <= level.keys():
            raise BadInputError("--limit and --subset say the same thing; give one of them")
        for pair in (("limit", "subset"), ("preset", "presets")):
            if any(key in level for key in pair):
                values = {key: value for key, value in values.items() if key not in pair}
        values |= level
    return values
