# SPDX-License-Identifier: Apache-2.0
"""Accuracy and its differences with 95% intervals that respect which rows share an image."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tta_bench.errors import BadInputError

CONFIDENCE = 0.95

Codes = NDArray[np.integer[Any]]
Values = NDArray[np.floating[Any]] | NDArray[np.bool_]


class Interval(NamedTuple):
    """A value with the ends of its interval; the ends are NaN where the data cannot give them."""

    value: float
    low: float
    high: float


def wilson(correct: int, images: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the accuracy on distinct images with its Wilson score interval.

    Args:
        correct: Images that were classified correctly.
        images: Images in all, at least 1.
        confidence: Probability that the interval covers.

    Raises:
        BadInputError: If there is no image or the counts contradict each other.

    Source: Wilson, Journal of the American Statistical Association 22 (1927).
    """
    from scipy.special import ndtri

    if not 0 <= correct <= images or images < 1:
        raise BadInputError(f"correct should be in 0..images with images >= 1, got {correct} of {images}")
    z = float(ndtri(0.5 + confidence / 2))
    share, spread = correct / images, z * z / images
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def accuracy(correct: Values, shift: Codes, image: Codes, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean over shifts of the accuracy, as a fraction, with its interval.

    One row per image under one shift gives a Wilson interval; anything else the clustered t interval of
    `mean_over_shifts`, because the same image under several shifts or seeds is not several images. Where all rows are
    right, or all wrong, that interval has no width, and the Wilson interval of so many images takes its place.

    Args:
        correct: (R,) whether each row is correct.
        shift: (R,) shift of each row, as codes from 0.
        image: (R,) image of each row, as codes from 0.
        confidence: Probability that the interval covers.

    Raises:
        BadInputError: If there is no row.
    """
    rows = len(correct)
    if rows and not shift.any() and np.bincount(image).max() == 1:
        return wilson(int(np.count_nonzero(correct)), rows, confidence)
    if rows and correct.min() == correct.max():
        images = len(np.unique(image))
        return wilson(images * int(correct[0]), images, confidence)
    return _within(mean_over_shifts(correct, shift, image, confidence), 0.0)


def difference(
    first: Values, second: Values, shift: Codes, image: Codes, confidence: float = CONFIDENCE
) -> Interval:
    """Return how much more accurate the first column is than the second on the same rows.

    Args:
        first: (R,) correctness of one set of predictions.
        second: (R,) correctness of the other on the same rows.
        shift: (R,) shift of each row, as codes from 0.
        image: (R,) image of each row, as codes from 0.
        confidence: Probability that the interval covers.

    Raises:
        BadInputError: If there is no row.
    """
    change = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return _within(mean_over_shifts(change, shift, image, confidence), -1.0)


def _within(found: Interval, least: float) -> Interval:
    """Return an interval cut to what the value can be, up to 1; ends that are not numbers stay so."""
    value, low, high = found
    return Interval(value, max(least, low), min(1.0, high)) if low == low else found


def mean_over_shifts(values: Values, shift: Codes, image: Codes, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean over shifts of the mean within each, with a t interval clustered by image.

    Every image contributes the sum of its rows' deviations from the mean of their shift. Where all shifts
    hold the same images this is exactly the t interval over the per-image means; where images are missing
    under some shifts it stays valid.

    Args:
        values: (R,) one number per row.
        shift: (R,) shift of each row, as codes from 0 without gaps.
        image: (R,) image of each row, as codes from 0 without gaps.
        confidence: Probability that the interval covers; with one image the ends are NaN.

    Raises:
        BadInputError: If there is no row.
    """
    from scipy.special import stdtrit

    if not len(values):
        raise BadInputError("an interval needs at least one row, got none")
    numbers = np.asarray(values, dtype=np.float64)
    rows = np.bincount(shift)
    means = np.bincount(shift, numbers) / rows
    value, shifts = float(means.mean()), len(rows)
    influence = np.bincount(image, (numbers - means[shift]) / (rows[shift] * shifts))
    images = len(influence)
    if images < 2:
        return Interval(value, math.nan, math.nan)
    error = math.sqrt(images / (images - 1) * float(influence @ influence))
    half = float(stdtrit(images - 1, 0.5 + confidence / 2)) * error
    return Interval(value, value - half, value + half)
