# SPDX-License-Identifier: Apache-2.0
"""The verdict on one golden case: the worst of all its values against their tolerances."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tta_bench.parity.result import CaseResult


class Judge:
    """Collect comparisons of one case and give the verdict.

    Args:
        family: Golden family.
        method: Golden method.
        case: Name of the case.
        tolerance: The tolerance that is shown; values with another one are scaled to it.
        rule: The family's own tolerance where this case is always judged by a wider one; None: they are the same.
    """

    def __init__(
        self, family: str, method: str, case: str, tolerance: float, rule: float | None = None
    ) -> None:
        self._family, self._method, self._case, self._tolerance = family, method, case, tolerance
        self._worst, self._where, self._count = 0.0, "", 0
        self._stretch, self._rule = 0.0, tolerance if rule is None else rule

    def compare(
        self,
        name: str,
        got: Tensor,
        golden: Tensor,
        tolerance: float | Tensor | None = None,
        strict: Tensor | None = None,
    ) -> None:
        """Compare one array with its golden values, element by element.

        Args:
            name: Named in the verdict if it deviates most.
            got: What we have, of the golden shape.
            golden: What it should be.
            tolerance: Absolute tolerance, one or for every element; None: that of the case.
            strict: The family's own rule where ``tolerance`` may be wider; None: they are the same.
        """
        self._count += 1
        if got.shape != golden.shape:
            shapes = f"{tuple(got.shape)}, golden {tuple(golden.shape)}"
            self._worst, self._where = math.inf, f"shape of {name} is {shapes}"
            return
        limit = torch.as_tensor(self._tolerance if tolerance is None else tolerance, dtype=torch.float64)
        away = (got.detach().double().cpu() - golden.double()).abs()
        ratio = away / limit
        worst = _largest(ratio)
        self._stretch = max(self._stretch, worst if strict is None else _largest(away / strict))
        if worst >= self._worst:
            self._worst, self._where = worst, name

    def same_classes(self, name: str, got: Tensor, golden: Tensor) -> None:
        """Fail the case unless the best class of every row is the golden one.

        Args:
            name: Named in the verdict if classes differ.
            got: Scores (..., K).
            golden: What they should be, of the same shape.
        """
        if got.shape == golden.shape and not torch.equal(got.argmax(-1).cpu(), golden.argmax(-1)):
            self._worst, self._where = math.inf, f"the best classes of {name}"

    def verdict(self) -> CaseResult:
        """Return the result of the case; a case without a comparison does not pass."""
        passed = self._count > 0 and self._worst <= 1
        note = f"{self._count} arrays, worst in {self._where}" if self._count else "nothing was compared"
        deviation = self._worst * self._tolerance
        return CaseResult(
            self._family,
            self._method,
            self._case,
            deviation,
            self._tolerance,
            passed,
            note,
            self._stretch,
            self._rule,
        )


def _largest(ratio: Tensor) -> float:
    return float(torch.nan_to_num(ratio, nan=math.inf).max()) if ratio.numel() else 0.0


def not_replayed(family: str, method: str, case: str, reason: str) -> CaseResult:
    """Return the entry of a case that was left out; it has no deviation and no tolerance."""
    return CaseResult(family, method, case, math.nan, math.nan, False, reason)


def was_replayed(result: CaseResult) -> bool:
    """Return whether a case was replayed at all."""
    return not math.isnan(result.tolerance)
