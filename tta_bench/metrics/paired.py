# SPDX-License-Identifier: Apache-2.0
"""Paired comparison of two sets of predictions on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tta_bench.errors import BadInputError
from tta_bench.metrics.accuracy import CONFIDENCE, Interval

Correct = NDArray[np.bool_]


class McNemar(NamedTuple):
    """Result of McNemar's test.

    Attributes:
        only_first: Images that only the first classifies correctly.
        only_second: Images that only the second classifies correctly.
        p: Two-sided p value of equal accuracy.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: Correct, second: Correct, method: Literal["exact", "mid-p"] = "mid-p") -> McNemar:
    """Return McNemar's test of equal accuracy on the same images.

    Args:
        first: (I,) correctness of one set of predictions.
        second: (I,) correctness of the other.
        method: ``exact`` is the binomial test; ``mid-p`` counts half the probability of the observed split,
            and is less conservative with few disagreements.

    Source: McNemar, Psychometrika 12 (1947); mid-p: Fagerland et al., BMC Medical Research Methodology 13:91.
    """
    from scipy.stats import binom

    left = int(np.count_nonzero(first & ~second))
    right = int(np.count_nonzero(second & ~first))
    total, fewer = left + right, min(left, right)
    doubled = 2 * float(binom.cdf(fewer, total, 0.5))
    if method == "mid-p":
        doubled -= float(binom.pmf(fewer, total, 0.5))
    return McNemar(left, right, min(1.0, doubled))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values adjusted by Holm's step-down rule for testing all of them at once.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return []
    return [float(p) for p in multipletests(list(p_values), method="holm")[1]]


def bootstrap_mean(
    values: NDArray[np.floating[Any]],
    *,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the mean of one paired difference per image with its percentile bootstrap interval.

    Images are drawn with replacement. Only how often each distinct difference is drawn matters, so the draws
    are multinomial over the distinct values: the same distribution at a fraction of the memory.

    Args:
        values: (I,) difference of each image.
        seed: Seed of the resampling.
        resamples: Resampled sets of images.
        confidence: Probability that the interval covers.

    Raises:
        BadInputError: If there is no image.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    images = len(values)
    if not images:
        raise BadInputError("a bootstrap needs at least one image, got none")
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(images, counts / images, size=resamples)
    low, high = np.quantile(drawn @ distinct / images, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(counts @ distinct) / images, float(low), float(high))
