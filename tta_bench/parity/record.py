# SPDX-License-Identifier: Apache-2.0
"""Sum the results of a replay up by registered method, for the status that ``list`` and ``describe`` show."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tta_bench import registry
from tta_bench.errors import BadInputError
from tta_bench.parity.judge import was_replayed
from tta_bench.parity.result import CaseResult
from tta_bench.parity.status import Status
from tta_bench.spec.whole import write_whole


def summarise(results: Iterable[CaseResult], measured_on: str = "") -> dict[str, Status]:
    """Return the status of every registered method that golden cases stand for.

    A golden method stands for the method whose card names it, else for the one whose card names a golden method
    that starts with the same word, numbers aside: ``norm_alpha`` for the card with ``online/norm_test``, ``dota2``
    for the one with ``vlm/dota``.

    Args:
        results: Of the replay.
        measured_on: Processor and versions, kept beside the deviation: that alone depends on them.

    Raises:
        BadInputError: If a case was replayed and failed.
    """
    cards = {name: registry.load("methods", name).card.parity for name in registry.registered("methods")}
    named = {golden for golden in cards.values() if golden}
    by_card: dict[str, list[CaseResult]] = {}
    for result in results:
        golden = f"{result.family}/{result.method}"
        by_card.setdefault(golden if golden in named else _word(golden), []).append(result)
    found: dict[str, Status] = {}
    for name, golden in cards.items():
        own = list(by_card.get(golden, []))
        if _word(golden) not in named:
            own += by_card.get(_word(golden), [])
        if golden and own:
            found[name] = _status(name, own, measured_on)
    return found


def write_status(results: Iterable[CaseResult], path: Path, measured_on: str) -> None:
    """Write the statuses as JSON, one method a line.

    Args:
        results: Of the replay.
        path: The file.
        measured_on: Processor and versions.

    Raises:
        BadInputError: If a case was replayed and failed.
    """
    summary = summarise(results, measured_on)
    lines = [f"{json.dumps(name)}: {json.dumps(s._asdict())}" for name, s in summary.items()]
    write_whole(path, "{\n  " + ",\n  ".join(lines) + "\n}\n")


def _word(golden: str) -> str:
    return golden.partition("_")[0].rstrip("0123456789")


def _status(name: str, results: list[CaseResult], measured_on: str) -> Status:
    replayed = [result for result in results if was_replayed(result)]
    failed = [result.case for result in replayed if not result.passed]
    if failed:
        raise BadInputError(
            f"expected the golden cases of {name} to pass, got failures in {', '.join(failed)}; fix them first"
        )
    if not replayed:
        return Status(len(results), 0, 0, 0.0, 0.0, measured_on)
    worst = max(replayed, key=lambda result: result.stretch)
    tolerance = worst.tolerance if worst.rule is None else worst.rule
    deviation = float(f"{worst.stretch * tolerance:.1g}")  # one digit: more is the machine's
    loose = sum(result.loose for result in replayed)
    return Status(len(results), len(replayed), loose, deviation, tolerance, measured_on)
