# SPDX-License-Identifier: Apache-2.0
"""The conformance suite: every flag of a method's card, and every rule of the contract, as a check.

`check_method` returns a list of results; `parametrize_with_checks` makes a pytest test of them. Both run on
the tiny models of `tta_bench.testing`, in seconds, on the CPU.
"""

from tta_bench.checks.core import BrokenPromiseError, Check, NotApplicableError
from tta_bench.checks.golden import golden_record
from tta_bench.checks.run import CHECKS, CheckResult, check_method, parametrize_with_checks

__all__ = [
    "CHECKS",
    "BrokenPromiseError",
    "Check",
    "CheckResult",
    "NotApplicableError",
    "check_method",
    "golden_record",
    "parametrize_with_checks",
]
