# SPDX-License-Identifier: Apache-2.0
"""Grids of hyper-parameters: settings with several values each, and the points that they span."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product

from tta_bench.errors import BadInputError
from tta_bench.spec.settings import parse_setting

MOST = 10_000
"""Points of a grid; more are a slip of the hand."""


def grid_points(settings: Sequence[str], sample: int | None = None, seed: int = 0) -> list[tuple[str, ...]]:
    """Return the settings of each point of a grid, the last setting varying fastest.

    Args:
        settings: ``key=a,b,c`` or ``method.key=a,b,c``; a comma inside brackets parts no values.
        sample: How many points to draw at random, each at most once; None: all.
        seed: Of the draw.

    Raises:
        BadInputError: If there is nothing to vary, a value is missing, or there are too many points or too few.
    """
    axes = [axis(text) for text in settings]
    if not any(len(one) > 1 for one in axes):
        raise BadInputError(
            "settings must give at least one hyper-parameter several values, such as alpha=1,2,3",
            options=("settings",),
        )
    count = 1
    for one in axes:
        count *= len(one)
    if sample is not None and not 1 <= sample <= count:
        raise BadInputError(
            f"sample must be 1 to {count}, the points of the grid, got {sample}", options=("sample",)
        )
    if (sample or count) > MOST:
        raise BadInputError(
            f"a grid may have up to {MOST} points, got {count}; draw some with sample=N", options=("sample",)
        )
    if sample is None:
        return list(product(*axes))
    chosen = sorted(random.Random(f"sweep {seed}").sample(range(count), sample))
    return [_point(axes, number) for number in chosen]


def _point(axes: Sequence[Sequence[str]], number: int) -> tuple[str, ...]:
    """Return the point of a number in the order of `itertools.product`."""
    found = []
    for one in reversed(axes):
        number, place = divmod(number, len(one))
        found.append(one[place])
    return tuple(reversed(found))


def axis(text: str) -> list[str]:
    """Return one setting for each value of a setting with several.

    Raises:
        BadInputError: If a value is empty.
    """
    setting = parse_setting(text)
    values = list(dict.fromkeys(_parted(setting.value)))
    if not all(values):
        raise BadInputError(f"settings must have a value between commas, got {text!r}", options=("settings",))
    key = text.partition("=")[0]
    return [f"{key}={value}" for value in values]


def _parted(text: str) -> list[str]:
    """Return the parts between commas that stand in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
