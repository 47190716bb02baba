# SPDX-License-Identifier: Apache-2.0
"""Power of paired comparisons: against the formula, and against trials."""

import math

import numpy as np
import pytest
from scipy import stats

from tta_bench.errors import BadInputError
from tta_bench.metrics.accuracy import Interval, difference
from tta_bench.metrics.power import deviation_of, images_needed, p_value, smallest_difference


def paired(images, seed=0):
    draw = np.random.default_rng(seed)
    first, second = draw.random(images) < 0.8, draw.random(images) < 0.7
    codes = np.arange(images)
    return first, second, difference(first, second, np.zeros(images, dtype=np.int64), codes)


@pytest.mark.parametrize("images", [10, 50, 400])
def test_deviation_and_p_are_those_of_the_paired_t_test(images):
    first, second, interval = paired(images)
    change = first.astype(float) - second
    assert deviation_of(interval, images) == pytest.approx(change.std(ddof=1))
    assert p_value(interval, images) == pytest.approx(stats.ttest_1samp(change, 0).pvalue)


def test_as_many_images_as_the_normal_formula_asks_for():
    # (1.95996 + 0.84162)^2 = 7.8489, to which a t test adds about two images
    assert images_needed(0.02, 0.4) == pytest.approx(7.8489 * (0.4 / 0.02) ** 2, abs=4)
    assert images_needed(-0.02, 0.4) == images_needed(0.02, 0.4)
    assert images_needed(0.001, 0.5) == pytest.approx(7.8489 * 500**2, rel=1e-3)


def test_the_two_questions_are_inverse():
    needed = images_needed(0.05, 0.5)
    assert smallest_difference(needed, 0.5) == pytest.approx(0.05, rel=0.01)


def test_eight_of_ten_trials_show_it():
    needed = images_needed(0.1, math.sqrt(0.3 - 0.1**2))  # differences -1, 0, 1 with 0.1, 0.7, 0.2
    draw = np.random.default_rng(0)
    trials = draw.choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=(2000, needed))
    shown = stats.ttest_1samp(trials, 0, axis=1).pvalue < 0.05
    assert shown.mean() == pytest.approx(0.8, abs=0.03)


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(BadInputError):
        images_needed(0.0, 0.5)
    with pytest.raises(BadInputError):
        deviation_of(Interval(0.0, 0.0, 0.0), 1)
    assert p_value(Interval(0.0, 0.0, 0.0), 10) == 1.0
