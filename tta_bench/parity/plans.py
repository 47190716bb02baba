# SPDX-License-Identifier: Apache-2.0
"""Replay plans by entry point: how a method reproduces the golden vectors of its reference.

The group ``tta_bench.replays`` has one entry ``FAMILY/NAME`` for each golden method of a family that is judged
here, and one entry ``FAMILY`` for a family that a package replays and judges by itself: a function
``cases(folder, method)`` that yields one `CaseResult` for each case.
"""

from __future__ import annotations

from typing import Any

from tta_bench import registry


def registered_plan(family: str, name: str) -> bool:
    """Return whether a package registers a plan for a golden method."""
    return f"{family}/{name}" in registry.registered("replays")


def load_plan(family: str, name: str) -> Any:
    """Return the plan of a golden method: a function from a case to what replays it, or to why nothing does."""
    return registry.load("replays", f"{family}/{name}")


def method(name: str, **values: Any) -> Any:
    """Return a registered method with hyper-parameters."""
    return registry.load("methods", name)(**values)
