# SPDX-License-Identifier: Apache-2.0
"""Run the checks on a method: as a list of results, or as the cases of a pytest test."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from tta_bench.checks import cards, devices, golden, purity, scores, states, surroundings, variants
from tta_bench.checks.core import BrokenPromiseError, Check, NotApplicableError
from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.hyperparameters import variant
from tta_bench.method import Method
from tta_bench.testing import device

Status = Literal["passed", "failed", "skipped", "xfail", "xpass"]
MODULES = (cards, purity, states, scores, variants, surroundings, devices, golden)

FOREIGN = (str(Path(torch.__file__).parent), str(Path(device.__file__).with_suffix("")))
"""Starts of files whose lines say little of where a method went wrong."""

CHECKS: tuple[Check, ...] = tuple(
    value for module in MODULES for value in vars(module).values() if isinstance(value, Check)
)
"""Every check, in the order in which they are run."""


class CheckResult(NamedTuple):
    """The result of one check.

    Attributes:
        name: The check.
        status: ``xfail`` failed as expected; ``xpass`` passed although a failure was expected, which counts
            as a failure.
        sentence: What must hold.
        reason: Why it failed or was skipped; empty if it passed.
    """

    name: str
    status: Status
    sentence: str
    reason: str

    @property
    def bad(self) -> bool:
        """Whether the result is one that a method must not have."""
        return self.status in ("failed", "xpass")


def check_method(method: Method, *, expected_failures: Mapping[str, str] | None = None) -> list[CheckResult]:
    """Run every check on a method, each on a fresh copy of it.

    Args:
        method: With the hyper-parameters to check; it is copied and not used itself.
        expected_failures: Reasons for known failures, by the name of the check.

    Raises:
        UnknownNameError: If a name in `expected_failures` is no check.
        BadInputError: If it is one that does not apply to the method.
    """
    expected = _known(expected_failures)
    results = [_one(check, copy.deepcopy(method), expected.get(check.name)) for check in CHECKS]
    for result in results:
        if result.status == "skipped" and result.name in expected:
            raise BadInputError(
                f"expected_failures names {result.name}, which does not apply to {type(method).__name__}: "
                f"{result.reason}; take it out"
            )
    return results


def _known(expected_failures: Mapping[str, str] | None) -> Mapping[str, str]:
    names = [check.name for check in CHECKS]
    for name in expected_failures or {}:
        if name not in names:
            raise UnknownNameError("check in expected_failures", name, names)
    return expected_failures or {}


def _one(check: Check, method: Method, expected: str | None) -> CheckResult:
    try:
        check(method)
    except NotApplicableError as error:
        return CheckResult(check.name, "skipped", check.sentence, str(error))
    except Exception as error:  # noqa: BLE001  a method under test may raise anything, and it is reported
        status: Status = "failed" if expected is None else "xfail"
        return CheckResult(check.name, status, check.sentence, _told(error) if expected is None else expected)
    if expected is None:
        return CheckResult(check.name, "passed", check.sentence, "")
    reason = f"passed, but a failure was expected: {expected}; take it out of expected_failures"
    return CheckResult(check.name, "xpass", check.sentence, reason)


def _told(error: Exception) -> str:
    """Return what is wrong: our own sentence, or the foreign error with the line that it came from."""
    if isinstance(error, BrokenPromiseError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if not one.filename.startswith(FOREIGN)]
    last = (own or frames)[-1]
    first = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first} ({last.filename.rpartition('/')[2]}, line {last.lineno})"


def parametrize_with_checks(
    methods: Sequence[Method], *, expected_failures: Mapping[str, str] | None = None
) -> Any:
    """Return the pytest mark that calls a test once for each method and check, with ``method`` and ``check``.

    Args:
        methods: Methods to check.
        expected_failures: Reasons for known failures, by the name of the check; such a test must fail.

    Example:
        >>> from tta_bench.checks import parametrize_with_checks
        >>> from tta_bench.adapters.source import Source
        >>> @parametrize_with_checks([Source()])
        ... def test_conformance(method, check):
        ...     check(method)
    """
    import pytest

    expected = _known(expected_failures)
    cases = []
    for method in methods:
        settings = variant(method)
        label = f"{type(method).__name__}({settings})" if settings else type(method).__name__
        for check in CHECKS:
            known = check.name in expected
            marks = [pytest.mark.xfail(reason=expected[check.name], strict=True)] if known else []
            case = copy.deepcopy(method), _skipping(check)
            cases.append(pytest.param(*case, id=f"{label}-{check.name}", marks=marks))
    return pytest.mark.parametrize(("method", "check"), cases)


def _skipping(check: Check) -> Any:
    """Return the check as pytest wants it: what does not apply is skipped."""
    import pytest

    def run(method: Method) -> None:
        try:
            check(method)
        except NotApplicableError as error:
            pytest.skip(str(error))

    return run
