# SPDX-License-Identifier: Apache-2.0
"""Create methods from a name, a preset and ``--set`` values."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from tta_bench import registry
from tta_bench.errors import BadInputError, PluginError, UnknownNameError
from tta_bench.method import Card, Method
from tta_bench.plugins import register
from tta_bench.spec import RESETS, PluginFile, digest
from tta_bench.spec.code import code_hash, module_texts

SHARED = (
    "tta_bench.norms", "tta_bench.augment", "tta_bench.losses", "tta_bench.optim", "tta_bench.prompts",
)  # fmt: skip
PROMPTS = "prompts"
"""Key of a preset that names prompt templates and is no hyper-parameter."""


def method_class(name: str, plugins: Mapping[str, type[Method]] | None = None) -> type[Method]:
    """Return the class that a method name stands for.

    Args:
        name: A registered name, or one that a plug-in file defines.
        plugins: Methods by name that were loaded from files.
    """
    from_files = plugins or {}
    if name in from_files:
        return check_method_class(name, from_files[name])
    if from_files and name not in registry.registered("methods"):
        raise UnknownNameError("method", name, [*registry.registered("methods"), *from_files])
    return check_method_class(name, registry.load("methods", name))


def check_method_class(name: str, found: Any) -> type[Method]:
    """Return what a name stands for if it is a method that can run.

    Raises:
        PluginError: If it is none, or has no card.
    """
    if not (inspect.isclass(found) and issubclass(found, Method)):
        raise PluginError(f"method {name!r} must be a subclass of tta_bench.method.Method, got {found!r}")
    cls: type[Method] = found
    parameters = vars(cls).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        raise PluginError(f"method {name!r} must be a frozen dataclass; put @dataclass(frozen=True) above it")
    card = getattr(cls, "card", None)
    if not isinstance(card, Card):
        raise PluginError(
            f"method {name!r} must have a tta_bench.method.Card as `card`, got {card!r}; give it one"
        )
    if card.reset not in RESETS:
        raise PluginError(
            f"the card of {name!r} must say reset={' or '.join(RESETS)}, got {card.reset!r}; fix it"
        )
    return cls


def methods_in_file(path: Path) -> dict[str, type[Method]]:
    """Return the methods that a Python file defines, by their ``name`` attribute or class name in lower case.

    Its datasets and models are made known to this process, see `tta_bench.plugins.register`.

    Raises:
        PluginError: If the file cannot be imported, or defines no method, dataset or model.
    """
    module = registry.load_file(path)
    others = register(path, module)
    found = {
        str(getattr(value, "name", key.lower())): value
        for key, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    }
    if not (found or others):
        raise PluginError(
            f"{path} defines no method, dataset or model; expected a subclass of tta_bench.method.Method in it"
        )
    return found


def plugin_methods(paths: Iterable[str]) -> dict[str, tuple[type[Method], PluginFile]]:
    """Return the methods of plug-in files by name, each with its file.

    Raises:
        PluginError: If a name is that of a registered method, or stands in two files.
    """
    found: dict[str, tuple[type[Method], PluginFile]] = {}
    owners = {
        name: f"package {registry.owner(point)}" for name, point in registry.registered("methods").items()
    }
    for path in {Path(one).resolve(): Path(one) for one in paths}.values():
        for name, cls in methods_in_file(path).items():
            if name in owners:
                raise PluginError(
                    f"method {name!r} of {path} is also one of {owners[name]}; give it another `name`"
                )
            owners[name] = str(path)
            found[name] = cls, PluginFile(str(path.resolve()), file_hash(path))
    return found


def plugin_method(plugin: PluginFile, name: str) -> type[Method]:
    """Return the method of a plug-in file, in whichever process.

    Raises:
        PluginError: If the file is gone, is another one by now, or defines no such method.
    """
    path, methods = Path(plugin.path), load_plugin(plugin)
    if name not in methods:
        raise PluginError(
            f"{path} defines {', '.join(methods) or 'none'} and no method {name!r}; plan the run again"
        )
    return methods[name]


def load_plugin(plugin: PluginFile) -> dict[str, type[Method]]:
    """Return the methods of a plug-in file, and make its datasets and models known.

    Raises:
        PluginError: If the file is gone, or is another one by now.
    """
    path = Path(plugin.path)
    if path.is_file() and file_hash(path) != plugin.sha256:
        raise PluginError(
            f"{path} should be the file that the cell was planned with and is another; plan the run again"
        )
    return methods_in_file(path)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hyperparameter_names(cls: type[Method]) -> set[str]:
    """Return the names of a method's hyper-parameters."""
    return {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]


def create_method(
    name: str,
    values: Mapping[str, Any] | None = None,
    *,
    preset: str = "",
    plugins: Mapping[str, type[Method]] | None = None,
) -> Method:
    """Return a method with its preset and its given hyper-parameters, checked against their types.

    Args:
        name: Name of the method.
        values: Hyper-parameters; text is read as the field's type: ``a,b`` or ``a`` as a tuple of names, and what
            begins with a bracket as JSON, which tuples within tuples need.
        preset: Name of a preset; its values yield to ``values``.
        plugins: Methods by name that were loaded from files.

    Raises:
        UnknownNameError: For an unknown method, preset or hyper-parameter.
        BadInputError: For a value of the wrong type or out of range.
    """
    cls = method_class(name, plugins)
    preset_values = _preset(cls, name, preset)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    chosen: dict[str, Any] = {key: value for key, value in preset_values.items() if key != PROMPTS}
    for key, value in (values or {}).items():
        if key not in fields:
            raise unknown_hyperparameter(name, key, fields)
        chosen[key] = _parsed(name, key, hints[key], value, default_of(fields[key]))
    try:
        return cls(**chosen)
    except ValueError as error:
        raise BadInputError(f"{name}: {error}") from error
    except registry.FAILURES as error:
        raise PluginError(
            f"method {name!r} cannot be made from its hyper-parameters: {registry.brief(error)}; fix it, and give "
            "every field a default"
        ) from error


def _preset(cls: type[Method], name: str, preset: str) -> Mapping[str, Any]:
    if preset and preset not in cls.presets:
        raise UnknownNameError(
            f"preset of {name}", preset, cls.presets, f"`tta-bench describe {name}` shows all"
        )
    return cls.presets[preset] if preset else {}


def declared_prompts(cls: type[Method], preset: str = "") -> str:
    """Return the name of the prompt templates that a method declares, for itself or in a preset."""
    return str(cls.presets.get(preset, {}).get(PROMPTS, cls.card.prompts))


def unknown_hyperparameter(method: str, key: str, known: Iterable[str]) -> BadInputError:
    """Return the error for a hyper-parameter that does not exist; prompts have an option of their own."""
    if key in (PROMPTS, "templates"):
        return BadInputError(
            f"prompt templates are no hyper-parameter of {method}, got {key!r}; choose them for the whole run with "
            "prompts=NAME or the name of a text file (`tta-bench list prompts` shows all names)",
            options=("prompts",),
        )
    return UnknownNameError(
        f"hyper-parameter of {method}", key, known, "`tta-bench describe METHOD` shows all"
    )


def _parsed(method: str, key: str, hint: Any, value: Any, default: Any) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(hint)
    problems = []
    for candidate in _readings(value):
        try:
            return adapter.validate_python(candidate)
        except ValidationError as error:
            problems.append(error.errors()[0]["msg"])
    problem = problems[0][0].lower() + problems[0][1:]
    form = f"{key}={written(default)}" if default is not dataclasses.MISSING else f"{key}=VALUE"
    raise BadInputError(
        f"hyper-parameter {key} of {method}: {problem}, got {value!r}; write it as {form}, which is the default"
    )


def written(value: Any) -> str:
    """Return a hyper-parameter as settings take it: ``none``, ``true``, ``a,b`` for a tuple, JSON for nested ones."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        flat = [written(one) for one in value]
        plain = len(flat) > 0 and not any(
            isinstance(one, tuple | list | Mapping) or "," in text or not text
            for one, text in zip(value, flat, strict=True)
        )
        return ",".join(flat) if plain and not flat[0].startswith(("[", "{")) else json.dumps(value)
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


def _readings(value: Any) -> Iterator[Any]:
    """Yield what a value may stand for: itself, and of text None, nested lists in JSON, and a list of names."""
    yield value
    if not isinstance(value, str):
        return
    if value.lower() == "none":
        yield None
    if value.startswith(("[", "{")):
        with suppress(ValueError):
            yield json.loads(value)
    if value:
        yield [part for part in value.split(",") if part]


def as_dict(method: Method) -> dict[str, Any]:
    """Return all hyper-parameters of a method, defaults included."""
    return dataclasses.asdict(method)  # type: ignore[call-overload, no-any-return]


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a hyper-parameter."""
    return field.default_factory() if callable(field.default_factory) else field.default


def variant(method: Method) -> str:
    """Return what differs from the method's defaults, as ``key=value,...`` in order of the names."""
    differing = []
    for field in dataclasses.fields(method):  # type: ignore[arg-type]
        value = getattr(method, field.name)
        default = default_of(field)
        if value != default:
            differing.append(f"{field.name}={_short(value)}")
    return ",".join(sorted(differing))


def _short(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


@lru_cache
def source_hash(cls: type[Method]) -> str:
    """Return the hash of the source text that a method's steps come from; the ids of its cells depend on it.

    It covers the method's module, the modules of its own package that it imports, the shared mathematics, and every
    other module that it reaches and that no package manager installed. The place of a plug-in file does not matter.
    """
    return digest(module_texts(cls.__module__, SHARED) or code_hash(cls), 16)
