# SPDX-License-Identifier: Apache-2.0
"""The numbers of one row: accuracy, gains, calibration, clocks and memory from records."""

from __future__ import annotations

import math

import numpy as np

from tta_bench.metrics.accuracy import Interval, accuracy, difference
from tta_bench.metrics.calibration import expected_calibration_error
from tta_bench.reports.load import Flags, Floats, Records


def summarise(records: Records) -> dict[str, float | None] | None:
    """Return the numbers of one row by column, None where the records say nothing; None without any record."""
    if not len(records.correct):
        return None
    place = records.shift, records.image
    peak = records.peak_mib
    return {
        "images": int(records.image.max()) + 1,
        **_interval("accuracy", accuracy(records.correct, *place)),
        "source_accuracy": accuracy(records.source_correct, *place).value,
        **_interval("gain", difference(records.correct, records.source_correct, *place)),
        **_prompts(records, records.prompts_correct),
        **_teacher(records, records.teacher_correct),
        "ece": _calibration(records),
        **_clocks(records.total_ms),
        "cached": records.cached,
        "peak_mib": None if np.isnan(peak).all() else _finite(float(np.nanmax(peak))),
    }


def _prompts(records: Records, zero_shot: Flags | None) -> dict[str, float | None]:
    """Return the accuracy of zero-shot classification with the prompts of the method, and the gain over it."""
    if zero_shot is None:
        return {}
    place = records.shift, records.image
    gain = _interval("prompts_gain", difference(records.correct, zero_shot, *place))
    return {"prompts_accuracy": accuracy(zero_shot, *place).value, **gain}


def _teacher(records: Records, teacher: Flags | None) -> dict[str, float | None]:
    """Return the teacher's accuracy, and the gain over it where it is not the source model itself."""
    if teacher is None:
        return {}
    value = {"teacher_accuracy": accuracy(teacher, records.shift, records.image).value}
    if not records.teacher_differs:
        return {**value}
    gain = difference(records.correct, teacher, records.shift, records.image)
    return {**value, **_interval("teacher_gain", gain)}


def _calibration(records: Records) -> float | None:
    # Rounding may lift a probability a little above 1; what is no probability at all has no calibration.
    if records.confidence.min() < 0 or records.confidence.max() > 1 + 1e-4:
        return None
    return _finite(expected_calibration_error(np.minimum(records.confidence, 1.0), records.correct))


def _clocks(total_ms: Floats) -> dict[str, float | None]:
    measured = total_ms[~np.isnan(total_ms)]
    if not len(measured):
        return {}
    percentiles = {f"ms_p{p}": float(np.percentile(measured, p)) for p in (50, 95, 99)}
    return {"ms_mean": float(measured.mean()), **percentiles}


def _interval(name: str, interval: Interval) -> dict[str, float | None]:
    ends = {"": interval.value, "_low": interval.low, "_high": interval.high}
    return {f"{name}{end}": _finite(value) for end, value in ends.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
