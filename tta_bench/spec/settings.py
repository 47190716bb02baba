# SPDX-License-Identifier: Apache-2.0
"""Parse hyper-parameters given as ``key=value`` or ``method.key=value``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tta_bench.errors import BadInputError


class Setting(NamedTuple):
    """One hyper-parameter that was given.

    Attributes:
        method: The method that it is for; empty: every method that has it.
        name: Of the hyper-parameter.
        value: Its value as text.
    """

    method: str
    name: str
    value: str


def parse_setting(text: str) -> Setting:
    """Return the parts of ``key=value`` or ``method.key=value``.

    Raises:
        BadInputError: If the text is neither.
    """
    key, equals, value = text.partition("=")
    method, _, name = key.rpartition(".")
    if not (equals and name):
        raise BadInputError(
            f"settings must be like lr=1e-4 or tent.lr=1e-4, got {text!r}", options=("settings",)
        )
    return Setting(method, name, value)


def read_settings(given: Any) -> Any:
    """Return settings as texts, also where they are given as a mapping such as ``{"tent.lr": 1e-4}``."""
    return [f"{key}={value}" for key, value in given.items()] if isinstance(given, Mapping) else given


def read_presets(given: Any) -> Any:
    """Return presets by method where they are given as texts, ``tent=imagenet-c``; the empty name is for all methods.

    Raises:
        BadInputError: If two are given for the same methods.
    """
    texts = (given,) if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return given
    found: dict[str, str] = {}
    for text in texts:
        method, equals, name = text.partition("=") if "=" in text else ("", "", text)
        if equals and not (method and name):
            raise BadInputError(
                f"presets must be like imagenet-c or tent=imagenet-c, got {text!r}", options=("presets",)
            )
        if found.get(method, name) != name:
            raise BadInputError(
                f"presets should name one for {method or 'all methods'}, got {found[method]} and {name}; write "
                "METHOD=NAME for each method",
                options=("presets",),
            )
        found[method] = name
    return found


def write_presets(presets: Mapping[str, str]) -> list[str]:
    """Return presets by method as texts that `read_presets` reads."""
    return [f"{method}={name}" if method else name for method, name in presets.items()]


def settings_for(method: str, settings: Iterable[str]) -> dict[str, str]:
    """Return the hyper-parameters that are meant for one method, by name; a later one wins."""
    parsed = (parse_setting(text) for text in settings)
    return {one.name: one.value for one in parsed if one.method in ("", method)}
