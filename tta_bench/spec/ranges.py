# SPDX-License-Identifier: Apache-2.0
"""The texts that stand for several images or severities: ``first-200``, ``1-5``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tta_bench.errors import BadInputError

WORST = 5
"""The highest severity."""


def subset_size(subset: str) -> int | None:
    """Return how many images a subset name stands for; None for ``full``.

    Raises:
        BadInputError: If it is none of ``full``, ``first-N``, ``seeded-N`` and ``robustbench-5k``.
    """
    if subset == "full":
        return None
    if subset == "robustbench-5k":
        return 5000
    kind, _, count = subset.partition("-")
    if kind not in ("first", "seeded") or not count.isdecimal():
        raise BadInputError(
            f"subset must be full, first-N, seeded-N or robustbench-5k, got {subset!r}", options=("subset",)
        )
    if int(count) == 0:
        raise _too_small(0)
    return int(count)


def limit_to_subset(limit: int) -> str:
    """Return the subset that a limit of N images per shift stands for."""
    if limit < 1:
        raise _too_small(limit)
    return f"first-{limit}"


def _too_small(limit: int) -> BadInputError:
    return BadInputError(
        f"limit must be at least 1 image per shift, got {limit}; leave it out for the default",
        options=("limit",),
    )


def read_severities(given: Any) -> Any:
    """Return severities as numbers where some are texts such as ``1-5``."""
    several = given if isinstance(given, list | tuple | set | range) else (given,)
    if not any(isinstance(one, str) for one in several):
        return tuple(sorted(several)) if several else several
    wrong = [one for one in several if isinstance(one, bool) or not isinstance(one, str | int)]
    return tuple(wrong) or parse_severities([str(one) for one in several])


MOST_SEEDS = 10_000
"""In one range; more is a slip of the pen."""


def read_seeds(given: Any) -> Any:
    """Return seeds as numbers where some are texts such as ``0-4`` or ``0,2``.

    Raises:
        BadInputError: For a text that is no such range.
    """
    several = given if isinstance(given, list | tuple | set | range) else (given,)
    seeds: list[Any] = []
    for one in several:
        seeds += _seeds(one) if isinstance(one, str) else [one]
    return tuple(dict.fromkeys(seeds)) if all(type(one) is int for one in seeds) else tuple(seeds)


def _seeds(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(end.isdecimal() and end.isascii() for end in ends) or int(ends[0]) > int(ends[-1]):
            raise BadInputError(f"seeds must be like 0, 0-4 or 0,2, got {text!r}", options=("seeds",))
        if int(ends[1]) - int(ends[0]) >= MOST_SEEDS:
            raise BadInputError(
                f"seeds must be at most {MOST_SEEDS} in one range, got {text!r}", options=("seeds",)
            )
        found += range(int(ends[0]), int(ends[1]) + 1)
    return found


def parse_severities(texts: Sequence[str]) -> tuple[int, ...]:
    """Return the severities that texts such as ``5``, ``1-5`` or ``1,3`` stand for, in ascending order."""
    named: set[int] = set()
    for text in texts:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            ends = (first, last) if dash else (first, first)
            if not all(end.isdecimal() for end in ends) or int(ends[0]) > int(ends[-1]):
                raise _unreadable(text)
            if int(ends[-1]) > WORST:
                raise BadInputError(
                    f"severities must be 1 to {WORST}, got {ends[-1]}", options=("severities",)
                )
            named.update(range(int(ends[0]), int(ends[-1]) + 1))
    if not named:
        raise _unreadable(", ".join(texts))
    return tuple(sorted(named))


def _unreadable(text: str) -> BadInputError:
    return BadInputError(f"severities must be like 5, 1-5 or 1,3, got {text!r}", options=("severities",))
