# SPDX-License-Identifier: Apache-2.0
"""Measure how far confidence is from accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tta_bench.errors import BadInputError


def expected_calibration_error(
    confidence: NDArray[np.floating[Any]], correct: NDArray[np.bool_], bins: int = 15
) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy over equal bins.

    Args:
        confidence: (R,) probability of the predicted class, in [0, 1].
        correct: (R,) whether the prediction is correct.
        bins: Equally wide bins over [0, 1]; a bin holds its lower edge, the last one also 1.

    Returns:
        A fraction in [0, 1]; NaN where a confidence is not finite or there is no row.

    Raises:
        BadInputError: If a confidence lies outside [0, 1].

    Source: Guo et al., arXiv:1706.04599, equation 3.
    """
    scores = np.asarray(confidence, dtype=np.float64)
    if not len(scores) or not np.isfinite(scores).all():
        return float("nan")
    if scores.min() < 0 or scores.max() > 1:
        raise BadInputError(f"confidence should lie in [0, 1], got {scores.min()} to {scores.max()}")
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.minimum(np.searchsorted(edges, scores, side="right") - 1, bins - 1)
    gap = np.bincount(index, scores, bins) - np.bincount(index, correct.astype(np.float64), bins)
    return float(np.abs(gap).sum() / len(scores))
