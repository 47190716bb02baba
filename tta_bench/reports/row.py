# SPDX-License-Identifier: Apache-2.0
"""One row of a leaderboard, and how each of its columns is written and checked."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["text", "count", "fraction", "gain", "ms", "mib", "flag"]


class Row(NamedTuple):
    """Results of one method variant on one model and dataset under one protocol.

    Accuracies are fractions in [0, 1] and gains their differences; ``*_low`` and ``*_high`` are the ends of
    95% intervals. ``docs/leaderboard.md`` explains every column.
    """

    method: str
    variant: str
    model: str
    dataset: str
    shifts: str
    seeds: str
    images: int | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    source_accuracy: float | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    teacher_accuracy: float | None
    teacher_gain: float | None
    teacher_gain_low: float | None
    teacher_gain_high: float | None
    ece: float | None
    ms_mean: float | None
    ms_p50: float | None
    ms_p95: float | None
    ms_p99: float | None
    peak_mib: float | None
    init_ms: float | None
    batch_size: int | None
    reset: str
    sees: str
    severity: str
    precision: str
    device: str
    weights: str
    preprocessing: str
    prompts: str
    source_data: str
    hyperparameters_chosen: str
    protocol: str
    status: str
    demonstration: bool
    mixed: bool


KINDS: dict[str, Kind] = {
    **dict.fromkeys(Row._fields, "text"),
    **dict.fromkeys(("images", "batch_size"), "count"),
    **dict.fromkeys(
        ("accuracy", "accuracy_low", "accuracy_high", "source_accuracy", "teacher_accuracy", "ece"),
        "fraction",
    ),
    **dict.fromkeys(("gain", "gain_low", "gain_high"), "gain"),
    **dict.fromkeys(("teacher_gain", "teacher_gain_low", "teacher_gain_high"), "gain"),
    **dict.fromkeys(("ms_mean", "ms_p50", "ms_p95", "ms_p99", "init_ms"), "ms"),
    "peak_mib": "mib",
    **dict.fromkeys(("demonstration", "mixed"), "flag"),
}
"""What each column holds; it decides digits and limits."""

DIGITS: dict[Kind, int] = {"fraction": 6, "gain": 6, "ms": 4, "mib": 3}
"""Digits after the point, by kind of number."""

SOURCE = "source"
"""Name of the method that does not adapt; its row, or one that equals it, leads its block."""
