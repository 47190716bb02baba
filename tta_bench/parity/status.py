# SPDX-License-Identifier: Apache-2.0
"""The agreement of each method with the golden vectors of its reference, as ``parity --record`` recorded it.

Read without torch. The tests replay the vectors and fail where the record disagrees.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Literal, NamedTuple

Label = Literal["exact", "close", "card only"]
FILE = "status.json"


class Status(NamedTuple):
    """The agreement of one method with its golden vectors.

    Attributes:
        cases: Golden cases of the method.
        replayed: How many were replayed; all of these pass.
        loose: How many are judged by a rule wider than their family's own.
        deviation: Largest difference, of the case that comes nearest to its family's rule or goes beyond it.
        tolerance: What that rule allows there.
        measured_on: Processor and versions of the deviation; nothing else depends on them.
    """

    cases: int
    replayed: int
    loose: int
    deviation: float
    tolerance: float
    measured_on: str = ""

    @property
    def label(self) -> Label:
        """``exact`` where every case is replayed and meets its family's own rule, else ``close``."""
        return "exact" if self.replayed == self.cases and self.loose == 0 else "close"

    def sentence(self) -> str:
        """Return the label with the counts behind it."""
        text = f"{self.label}: {self.replayed} of {self.cases} golden cases met"
        return text + (f", {self.loose} by a wider rule" if self.loose else "")


@cache
def statuses() -> dict[str, Status]:
    """Return the recorded statuses by registered method."""
    text = (files("tta_bench.parity") / FILE).read_text(encoding="utf-8")
    return {name: Status(**entry) for name, entry in json.loads(text).items()}


def label(method: str) -> Label:
    """Return ``exact``, ``close``, or ``card only`` for a method without golden vectors."""
    status = statuses().get(method)
    return status.label if status else "card only"


def sentence(method: str) -> str:
    """Return the label of a method with the counts behind it."""
    status = statuses().get(method)
    return status.sentence() if status else "card only: no golden vectors"
