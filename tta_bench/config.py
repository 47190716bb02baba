# SPDX-License-Identifier: Apache-2.0
"""Read and write the options of a run as YAML; the keys are the names of the options on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.names import split, split_datasets
from tta_bench.spec import Controls, Request
from tta_bench.spec.options import Option, options_of

SUITE = "suite"
"""Key that names a suite; it is no option of a request."""


def key_of(one: Option) -> str:
    """Return the key of an option in a file: its flag without the dashes, or its name."""
    return (one.flag or one.name).partition("/")[0].removeprefix("--")


def file_options() -> dict[str, Option]:
    """Return the options of requests and controls by every key that a file may name them by.

    Besides `key_of` that is their name in Python, and either with ``_`` for ``-``.
    """
    options = [*options_of(Request).values(), *options_of(Controls).values()]
    keys = {one.name: one for one in options}
    keys |= {key_of(one).replace("-", "_"): one for one in options if one.flag}
    return keys | {key_of(one): one for one in options if one.flag}


def read_config(path: Path) -> dict[str, Any]:
    """Return the options that a YAML file gives, by their names in Python, and ``suite`` where it names one.

    Raises:
        BadInputError: If the file is missing, is not YAML, or holds a value of the wrong type.
        UnknownNameError: If it holds a key that is no option.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise BadInputError(
            f"config expects a YAML file, got {str(path)!r}, which does not exist; check the path",
            options=("config",),
        ) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise BadInputError(
            f"config expects YAML, but {path} cannot be read: {problem}", options=("config",)
        ) from error
    if not isinstance(content, dict):
        raise BadInputError(f"{path} must hold options such as 'method: [apm]', got {type(content).__name__}")
    suite = content.pop(SUITE, None)
    if suite is not None and not isinstance(suite, str):
        raise BadInputError(f"option suite in {path} must be a name, got {suite!r}")
    return read_options(content, str(path)) | ({SUITE: suite} if suite else {})


def read_options(content: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return the options of a run in a mapping that was read from a file; what is null was not given.

    Args:
        content: Keys of `file_options` to values.
        where: Name of the file, for the message.

    Raises:
        BadInputError: For the first value of the wrong type, or an option that is given twice.
        UnknownNameError: For a key that is no option.
    """
    known, found, keys = file_options(), dict[str, Any](), dict[str, str]()
    for key, value in content.items():
        if key not in known:
            raise UnknownNameError(f"option in {where}", str(key), {key_of(one) for one in known.values()})
        one = known[key]
        if value is None:
            continue
        if one.name in found:
            raise BadInputError(f"{where} gives {keys[one.name]} and {key}, which are one option; keep one")
        keys[one.name] = key
        try:
            found[one.name] = one.read(value)
        except BadInputError as error:
            problem = str(error).removeprefix(one.name).strip()
            raise BadInputError(f"option {key} in {where} {problem}") from error
    return found


def write_config(values: Mapping[str, Any], suite: str = "") -> str:
    """Return options as YAML that `read_config` reads, one a line, in the order of their declaration.

    Args:
        values: Options by their names in Python.
        suite: The suite that they change; empty: none.
    """
    known = {**options_of(Request), **options_of(Controls)}
    content: dict[str, Any] = {SUITE: suite} if suite else {}
    for name, one in known.items():
        if values.get(name) not in (None, ""):
            content[key_of(one)] = _plain(one, values[name])
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def _plain(one: Option, value: Any) -> Any:
    """Return a value as YAML has it, and as a user would write it."""
    value = value if one.facts.write is None else one.facts.write(value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def effective_config(request: Request, controls: Controls) -> str:
    """Return every option of a run as YAML, those at their defaults too; of a suite's run what was given beside it."""
    values = {name: getattr(request, name) for name in options_of(Request)}
    if request.suite is not None:
        values = {name: value for name, value in values.items() if name in request.suite.changed}
    for name, parted in (("methods", split), ("datasets", split_datasets)):
        values |= {name: tuple(parted(values[name]))} if name in values else {}
    values |= {"presets": {"": request.preset, **request.presets}} if values.pop("preset", "") else {}
    return write_config(
        {**values, **{name: getattr(controls, name) for name in options_of(Controls)}},
        request.suite.name if request.suite else "",
    )
