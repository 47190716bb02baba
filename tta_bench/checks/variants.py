# SPDX-License-Identifier: Apache-2.0
"""Checks of methods whose step parts in observing and scoring."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from tta_bench.checks.bench import Bench, benches
from tta_bench.checks.core import check, promise, skip_unless
from tta_bench.checks.trees import difference
from tta_bench.errors import BadInputError
from tta_bench.method import Method, ScoringMethod


@check(
    "Hyper-parameters declared as scoring enter the score alone, and observing and scoring make up a step.",
    applies="the class declares scoring hyper-parameters",
)
def scoring_is_apart(method: Method) -> None:
    """Change each of them, and compare states and evidence of three steps; then compare the scores of both ways."""
    skip_unless(isinstance(method, ScoringMethod) and method.scoring, "the class declares none")
    fields = {field.name for field in dataclasses.fields(method)}  # type: ignore[arg-type]
    for name in sorted(method.scoring):  # type: ignore[attr-defined]
        promise(name in fields, f"scoring names {name}, which is no hyper-parameter")
        other = _changed(method, name)
        for bench in benches(method):
            _same_pass(bench, Bench(other, bench.source), name)


def _changed(method: Method, name: str) -> Method:
    """Return a copy with another value of a hyper-parameter."""
    value: Any = getattr(method, name)
    for candidate in (not value,) if isinstance(value, bool) else (value + 1, value / 2, value * 2):
        try:
            if candidate != value:
                return dataclasses.replace(method, **{name: candidate})  # type: ignore[type-var]
        except BadInputError:
            continue
    promise(False, f"{name} is declared as scoring, but takes no other value near {value}")
    return method


def _same_pass(bench: Bench, other: Bench, name: str) -> None:
    first = second = bench.init()
    for seed in range(3):
        inputs = bench.episode(seed)
        with torch.no_grad():
            observed = bench.method.observe(bench.source, first, inputs)  # type: ignore[attr-defined]
            varied = other.method.observe(bench.source, second, inputs)  # type: ignore[attr-defined]
            scores = bench.method.score(bench.source, observed[1])  # type: ignore[attr-defined]
        change = difference(observed, varied)
        promise(not change, f"{change} with another {name}, which is declared as scoring, {bench.where}")
        adapted = bench.adapt(first, inputs)
        change = difference((adapted.state, adapted.logits), (observed[0], scores))
        promise(not change, f"{change} between adapt and observe with score {bench.where}")
        first, second = observed[0], varied[0]
