# SPDX-License-Identifier: Apache-2.0
"""The result of one replayed golden case."""

from __future__ import annotations

from typing import NamedTuple


class CaseResult(NamedTuple):
    """Largest deviation of one golden case, and the verdict.

    Attributes:
        family: Golden family, e.g. ``"apm"``.
        method: Method (or corruption) that was replayed.
        case: Name of the case inside its family.
        deviation: Largest absolute difference to the golden values; for cases judged element by element
            against a mixed tolerance, the largest ratio of difference to tolerance times ``tolerance``.
        tolerance: What ``deviation`` may reach.
        passed: Whether every compared value is within tolerance and finite.
        note: What was compared, or why the case could not be replayed.
        stretch: Largest difference as a share of the family's own rule; above 1 the case passes only by a wider
            one, such as the measured noise of the reference's backend.
        rule: The family's own tolerance; ``tolerance`` is larger where the case is always judged by a wider rule.
    """

    family: str
    method: str
    case: str
    deviation: float
    tolerance: float
    passed: bool
    note: str = ""
    stretch: float = 0.0
    rule: float | None = None

    @property
    def loose(self) -> bool:
        """Whether a wider rule than the family's own was needed, or always applies, on any machine."""
        return self.stretch > 1 or self.rule not in (None, self.tolerance)
