# SPDX-License-Identifier: Apache-2.0
"""Define a check: a function that tests one sentence about a method, and ways to fail or skip it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tta_bench.checks.guard import guarded
from tta_bench.method import Method

CheckFunction = Callable[[Method], None]


class BrokenPromiseError(AssertionError):
    """Report that a method does not do what the contract or its card says."""


class NotApplicableError(Exception):
    """Report that a check says nothing about a method, and why."""


class Check(NamedTuple):
    """One check.

    Attributes:
        name: As in `expected_failures` and on the command line.
        sentence: What must hold.
        applies: When it is tested; empty for every method.
        function: Raises `BrokenPromiseError` or `NotApplicableError`.
    """

    name: str
    sentence: str
    applies: str
    function: CheckFunction

    def __call__(self, method: Method) -> None:
        """Test the sentence on a method that nothing else has used."""
        with guarded():
            self.function(method)


def check(sentence: str, *, applies: str = "") -> Callable[[CheckFunction], Check]:
    """Make a check of a function; its name is the function's.

    Args:
        sentence: What must hold.
        applies: When it is tested; empty for every method.
    """

    def made(function: CheckFunction) -> Check:
        return Check(function.__name__, sentence, applies, function)

    return made


def promise(holds: bool, detail: str) -> None:
    """Raise `BrokenPromiseError` with a detail unless something holds."""
    if not holds:
        raise BrokenPromiseError(detail)


def skip_unless(applies: object, reason: str) -> None:
    """Raise `NotApplicableError` with a reason unless a check applies."""
    if not applies:
        raise NotApplicableError(reason)
