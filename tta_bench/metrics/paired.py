# SPDX-License-Identifier: Apache-2.0
"""Paired comparison of two sets of predictions on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
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


FINEST = 5040
"""The finest grid that differences are rounded to, as parts of 1; a mean over up to ten seeds lies on it exactly."""


def sign_flip(differences: NDArray[np.floating[Any]]) -> float:
    """Return the two-sided mid-p value of the sign-flip test that paired differences have mean 0.

    Each image enters once, with the sum or mean of its differences over shifts and seeds: the rows of one image are
    not independent, and flip together. The distribution of the sum is computed exactly, as a convolution. Where every
    difference is -1, 0 or 1 this is `mcnemar` with mid-p.

    Args:
        differences: (I,) one number per image.

    Source: Fisher, The Design of Experiments (1935), section 21.
    """
    from scipy.fft import irfft, next_fast_len

    values, counts = np.unique(np.asarray(differences, dtype=np.float64), return_counts=True)
    parts = [Fraction(value).limit_denominator(FINEST) for value in values.tolist()]
    scale = min(math.lcm(*(part.denominator for part in parts)), FINEST) if parts else 1
    steps = np.rint(values * scale).astype(np.int64)
    sizes, inverse = np.unique(np.abs(steps), return_inverse=True)
    times = np.bincount(inverse, counts)[sizes > 0]
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return 1.0
    total, observed = int(sizes @ times), abs(int(steps @ counts))
    length = next_fast_len(total + 1, real=True)
    angle = 2 * np.pi * np.arange(length // 2 + 1) / length
    transform = np.exp(-0.5j * angle * total)
    for size, count in zip(sizes, times, strict=True):
        transform *= np.cos(angle * size / 2) ** count
    chance = irfft(transform, length)
    above = (total + observed) // 2
    p = 2 * float(chance[above + 1 : total + 1].sum()) + float(chance[above])
    return min(1.0, max(p, float(np.exp2(-min(times.sum(), 1000.0)))))


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
