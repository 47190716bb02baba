# SPDX-License-Identifier: Apache-2.0
"""Declare an option once; the command line, YAML files, suites and the Python interface are derived from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from os import PathLike, fspath
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from tta_bench.errors import BadInputError

KINDS = {str: "a name", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Facts:
    """An option's declaration besides its name, type and default.

    Attributes:
        help: One line for ``--help`` and the documentation.
        flag: On the command line; empty: the name with dashes; None: it has none.
        choices: Values that are allowed; empty: any.
        numbered: Choices that may carry a number, as ``cuda:1``.
        least: The lowest value.
        below: The values must be below this.
        needed: The sentence that asks for a value where an empty one is refused.
        read: Turns what a user wrote into what the type expects, before it is checked.
        write: Turns a value back into what a user would write, where that is not the value itself.
    """

    help: str
    flag: str | None = ""
    choices: tuple[str, ...] = ()
    numbered: tuple[str, ...] = ()
    least: int | None = None
    below: int | None = None
    needed: str = ""
    read: Callable[[Any], Any] | None = None
    write: Callable[[Any], Any] | None = None


def option(default: Any, help: str, **facts: Any) -> Any:
    """Declare a field of a dataclass as an option; the further facts are those of `Facts`."""
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"option": Facts(help, **facts)})
    return field(default=default, metadata={"option": Facts(help, **facts)})


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: In Python, in YAML and in a suite.
        kind: ``str``, ``int``, ``float`` or ``bool``.
        many: Whether it takes several values.
        by_name: Whether it takes a mapping of names to values.
        optional: Whether it may be None.
        default: Its default.
        facts: What else is declared.
    """

    name: str
    kind: type
    many: bool
    by_name: bool
    optional: bool
    default: Any
    facts: Facts

    @property
    def flag(self) -> str | None:
        """Return its name on the command line, None if it has none."""
        return self.facts.flag if self.facts.flag != "" else as_flag(self.name)

    def read(self, value: Any) -> Any:
        """Return a value as the option's type has it: several values as a tuple, one value alone as one of them.

        Raises:
            BadInputError: If it is of another type.
        """
        value = value if self.facts.read is None else self.facts.read(value)
        if value is None and self.optional:
            return None
        if self.by_name:
            if not isinstance(value, Mapping):
                raise self._wrong("must map names to values", value)
            return {str(key): self._one(one) for key, one in value.items()}
        if self.many:
            several = isinstance(value, Sequence | set | frozenset) and not isinstance(value, str)
            return tuple(self._one(one) for one in (value if several else (value,)))
        return self._one(value)

    def _one(self, value: Any) -> Any:
        if self.kind is str and isinstance(value, PathLike):
            return fspath(value)
        if self.kind is float and type(value) is int:
            return float(value)
        if not isinstance(value, self.kind) or (isinstance(value, bool) and self.kind is not bool):
            raise self._wrong(f"must be {KINDS[self.kind]}", value)
        return value

    def check(self, value: Any) -> None:
        """Refuse a value out of range.

        Raises:
            BadInputError: With the range.
        """
        if self.facts.needed and not value:
            raise BadInputError(f"{self.name} {self.facts.needed}", options=(self.name,))
        if value is None:
            return
        for one in value if self.many else (value,):
            self._check_one(one)

    def _check_one(self, value: Any) -> None:
        least, below, choices = self.facts.least, self.facts.below, self.facts.choices
        if choices and value not in choices and not self._numbered(value):
            more = [f"{one}:N" for one in self.facts.numbered]
            raise self._wrong(f"must be one of {', '.join([*choices, *more])}", value)
        if (least is None or value >= least) and (below is None or value < below):
            return
        raise self._wrong(f"must be {_range(least, below)}", value)

    def _numbered(self, value: str) -> bool:
        """Return whether a value is a choice with a number behind it."""
        kind, _, number = value.partition(":")
        return kind in self.facts.numbered and number.isascii() and number.isdecimal()

    def _wrong(self, expected: str, came: Any) -> BadInputError:
        return BadInputError(f"{self.name} {expected}, got {came!r}", options=(self.name,))


def _range(least: int | None, below: int | None) -> str:
    if below is None:
        return f"{least} or more"
    if below > 10**6:
        return f"{least} or more and below 2**{below.bit_length() - 1}"
    return f"{least} to {below - 1}"


def as_flag(name: str) -> str:
    """Return the flag of an option that declares none of its own."""
    return "--" + name.replace("_", "-")


@lru_cache
def options_of(cls: type) -> dict[str, Option]:
    """Return the options that a dataclass declares, by name."""
    hints = get_type_hints(cls)
    return {one.name: one for one in _declared(cls, hints)}


def _declared(cls: type, hints: Mapping[str, Any]) -> Iterator[Option]:
    for one in dataclasses.fields(cls):
        facts = one.metadata.get("option")
        if facts is None:
            continue
        hint = hints[one.name]
        inner = [part for part in get_args(hint) if part is not NoneType]
        optional = get_origin(hint) is UnionType
        many, by_name = get_origin(hint) is tuple, get_origin(hint) is Mapping
        kind = inner[-1] if by_name else inner[0] if inner else hint
        default = {} if one.default is dataclasses.MISSING else one.default
        yield Option(one.name, kind, many, by_name, optional, default, facts)


def read_values(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return given values as the types of a dataclass' options have them; what is None was not given.

    Raises:
        BadInputError: For a value of another type.
    """
    known = options_of(cls)
    return {name: known[name].read(value) for name, value in given.items() if value is not None}
