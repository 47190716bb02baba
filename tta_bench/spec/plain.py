# SPDX-License-Identifier: Apache-2.0
"""Typed objects to JSON and back: dataclasses of texts, numbers, tuples and mappings, checked field by field."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


class NotPlainError(ValueError):
    """Report a value of another type than its field has, with the place of the field."""


def to_plain(value: Any) -> Any:
    """Return a dataclass, or what is in one, as what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: to_plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(one) for one in value]
    return value


def from_plain(cls: type[T], data: Any, where: str = "") -> T:
    """Return the object of a dataclass that `to_plain` gave.

    Args:
        cls: The dataclass.
        data: What JSON held.
        where: Place of the data, for the message.

    Raises:
        NotPlainError: For a fact that is missing, unknown or of another type.
    """
    if not isinstance(data, Mapping):
        raise NotPlainError(f"{where or cls.__name__} must be an object, got {type(data).__name__}")
    hints, fields = _hints(cls), {one.name: one for one in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(str(name) for name in data.keys() - fields.keys())
    if unknown:
        raise NotPlainError(f"{_place(where, unknown[0])} is no fact of this schema")
    values = {name: _read(hints[name], value, _place(where, name)) for name, value in data.items()}
    for name, one in fields.items():
        if name not in data and one.default is one.default_factory is dataclasses.MISSING:
            raise NotPlainError(f"{_place(where, name)} is required and missing")
    return cls(**values)


@lru_cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _place(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is UnionType:
        return _any_of(inner, value, where)
    if origin is Literal:
        if value not in inner:
            raise NotPlainError(f"{where} must be {', '.join(map(str, inner))}, got {value!r}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_read(inner[0], one, where) for one in value)
    if origin is Mapping and isinstance(value, Mapping):
        return {key: _read(inner[1], one, _place(where, str(key))) for key, one in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_plain(hint, value, where)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    raise NotPlainError(f"{where} must be {_type_name(hint)}, got {type(value).__name__}")


def _any_of(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and NoneType in hints:
        return None
    problem: NotPlainError | None = None
    for hint in hints:
        if hint is not NoneType:
            try:
                return _read(hint, value, where)
            except NotPlainError as error:
                problem = problem or error
    assert problem is not None
    raise problem


def _type_name(hint: Any) -> str:
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return words.get(hint, "a list" if get_origin(hint) is tuple else "an object")
