# SPDX-License-Identifier: Apache-2.0
"""Power of a paired comparison: the images it needs, and the smallest difference that so many can show."""

from __future__ import annotations

import math

from tta_bench.errors import BadInputError
from tta_bench.metrics.accuracy import CONFIDENCE, Interval

POWER = 0.8
"""Probability with which a difference of the asked size shows."""


def deviation_of(interval: Interval, images: int) -> float:
    """Return the standard deviation of one image's paired difference, from the t interval of their mean.

    Args:
        interval: Mean and 95% interval over so many images.
        images: How many, at least 2.

    Raises:
        BadInputError: If there are fewer.
    """
    from scipy.special import stdtrit

    if images < 2:
        raise BadInputError(f"a deviation needs at least two images, got {images}")
    half = max(interval.value - interval.low, interval.high - interval.value)
    return half / float(stdtrit(images - 1, 0.5 + CONFIDENCE / 2)) * math.sqrt(images)


def p_value(interval: Interval, images: int) -> float:
    """Return the two-sided p value of no difference, of the paired t test that an interval belongs to.

    Args:
        interval: Mean and 95% interval over so many images.
        images: How many, at least 2.
    """
    from scipy.special import stdtr

    deviation = deviation_of(interval, images)
    if not deviation:
        return 1.0 if interval.value == 0 else 0.0
    return 2 * float(stdtr(images - 1, -abs(interval.value) / deviation * math.sqrt(images)))


def images_needed(difference: float, deviation: float, power: float = POWER) -> int:
    """Return how many images a paired t test at 5% needs to show a difference.

    Args:
        difference: Mean paired difference, as a fraction; not 0.
        deviation: Standard deviation of one image's difference, above 0.
        power: Probability with which it shows.

    Raises:
        BadInputError: If one of them is 0.

    Source: Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), chapter 2.
    """
    from statsmodels.stats.power import TTestPower

    if not difference or deviation <= 0:
        raise BadInputError(
            f"a power calculation needs a difference and a deviation other than 0, got {difference} and {deviation}"
        )
    effect = abs(difference) / deviation
    found = TTestPower().solve_power(effect_size=effect, alpha=1 - CONFIDENCE, power=power, nobs=None)
    return max(2, math.ceil(float(found)))


def smallest_difference(images: int, deviation: float, power: float = POWER) -> float:
    """Return the smallest difference that so many images show in a paired t test at 5%.

    Args:
        images: How many, at least 2.
        deviation: Standard deviation of one image's difference.
        power: Probability with which it shows.
    """
    from statsmodels.stats.power import TTestPower

    effect = TTestPower().solve_power(nobs=images, alpha=1 - CONFIDENCE, power=power, effect_size=None)
    return float(effect) * deviation
