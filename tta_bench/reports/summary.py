# SPDX-License-Identifier: Apache-2.0
"""The numbers of one row: accuracy, gains, calibration, clocks and memory from records."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tta_bench.metrics.accuracy import Interval, accuracy, difference
from tta_bench.metrics.calibration import expected_calibration_error
from tta_bench.reports.load import Flags, Floats, Records


class Numbers(NamedTuple):
    """What the records of one row say; None where they say nothing."""

    images: int
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


def summarise(records: Records) -> Numbers | None:
    """Return the numbers of one row, or None without any record."""
    if not len(records.correct):
        return None
    own = accuracy(records.correct, records.shift, records.image)
    source = accuracy(records.source_correct, records.shift, records.image)
    return Numbers(
        int(records.image.max()) + 1,
        *_told(own),
        source.value,
        *_told(difference(records.correct, records.source_correct, records.shift, records.image)),
        *_teacher(records, records.teacher_correct),
        _calibration(records),
        *_clocks(records.total_ms),
        _none(float(np.nanmax(records.peak_mib))) if not np.isnan(records.peak_mib).all() else None,
    )


def _teacher(
    records: Records, teacher: Flags | None
) -> tuple[float | None, float | None, float | None, float | None]:
    """Return the teacher's accuracy, and the gain over it where it is not the source model itself."""
    if teacher is None:
        return None, None, None, None
    value = accuracy(teacher, records.shift, records.image).value
    if not records.teacher_differs:
        return value, None, None, None
    return value, *_told(difference(records.correct, teacher, records.shift, records.image))


def _calibration(records: Records) -> float | None:
    # Rounding may lift a probability a little above 1; what is no probability at all has no calibration.
    if records.confidence.min() < 0 or records.confidence.max() > 1 + 1e-4:
        return None
    return _none(expected_calibration_error(np.minimum(records.confidence, 1.0), records.correct))


def _clocks(total_ms: Floats) -> tuple[float | None, float | None, float | None, float | None]:
    measured = total_ms[~np.isnan(total_ms)]
    if not len(measured):
        return None, None, None, None
    p50, p95, p99 = (float(value) for value in np.percentile(measured, [50, 95, 99]))
    return float(measured.mean()), p50, p95, p99


def _told(interval: Interval) -> tuple[float | None, float | None, float | None]:
    return _none(interval.value), _none(interval.low), _none(interval.high)


def _none(value: float) -> float | None:
    return value if math.isfinite(value) else None
