# SPDX-License-Identifier: Apache-2.0
"""Ranges of hyper-parameters, refused with the name and the value that was given."""

from __future__ import annotations

from math import inf
from typing import Any

from tta_bench.errors import BadInputError


def within(method: Any, low: float, high: float, *names: str) -> None:
    """Refuse hyper-parameters of a method outside [low, high], NaN included.

    Raises:
        BadInputError: With name, range and value.
    """
    for name in names:
        value = getattr(method, name)
        if not low <= value <= high:
            expected = f"{low:g} or more" if high == inf else f"in [{low:g}, {high:g}]"
            raise BadInputError(f"{name} must be {expected}, got {value}")


def positive(method: Any, *names: str) -> None:
    """Refuse hyper-parameters of a method that are not above 0 and finite.

    Raises:
        BadInputError: With name and value.
    """
    for name in names:
        value = getattr(method, name)
        if not 0 < value < inf:
            raise BadInputError(f"{name} must be above 0 and finite, got {value}")


def one_of(method: Any, name: str, *choices: str) -> None:
    """Refuse a hyper-parameter of a method that is none of the choices.

    Raises:
        BadInputError: With name, choices and value.
    """
    value = getattr(method, name)
    if value not in choices:
        raise BadInputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
