# SPDX-License-Identifier: Apache-2.0
"""Intervals agree with scipy and statsmodels where they have them, and cover what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from tta_bench.errors import BadInputError
from tta_bench.metrics.accuracy import accuracy, difference, mean_over_shifts, wilson


@given(
    st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999)
)
def test_wilson_is_that_of_statsmodels(counts, confidence):
    correct, images = counts
    found = wilson(correct, images, confidence)
    reference = proportion_confint(correct, images, alpha=1 - confidence, method="wilson")
    assert found.value == correct / images
    np.testing.assert_allclose((found.low, found.high), reference, atol=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(("correct", "images"), [(1, 0), (0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_impossible_counts(correct, images):
    with pytest.raises(BadInputError, match=f"got {correct} of {images}"):
        wilson(correct, images)


def balanced(generator, images, shifts):
    difficulty = generator.normal(size=images)
    values = difficulty[None] + generator.normal(size=(shifts, images)) > 0
    shift, image = np.indices((shifts, images))
    return values, shift.ravel(), image.ravel()


@given(st.integers(2, 60), st.integers(1, 6), st.integers(0, 10**6))
def test_over_the_same_images_it_is_the_t_interval_of_the_image_means(images, shifts, seed):
    values, shift, image = balanced(np.random.default_rng(seed), images, shifts)
    means = values.mean(axis=0)
    reference = (
        stats.ttest_1samp(means, 0.0).confidence_interval(0.95) if np.ptp(means) > 0 else (means[0],) * 2
    )
    found = mean_over_shifts(values.ravel(), shift, image)
    np.testing.assert_allclose(found, (means.mean(), *reference), atol=1e-12)


@given(st.integers(2, 40), st.integers(0, 10**6))
def test_the_paired_difference_is_the_t_interval_of_the_differences(images, seed):
    generator = np.random.default_rng(seed)
    first, second = generator.random((2, images)) < 0.5
    change = first.astype(float) - second
    found = difference(first, second, np.zeros(images, int), np.arange(images))
    half = stats.t.ppf(0.975, images - 1) * stats.sem(change)
    ends = np.clip((change.mean() - half, change.mean() + half), -1, 1)
    np.testing.assert_allclose(found, (change.mean(), *ends), atol=1e-12)


@pytest.mark.parametrize("right", [True, False])
def test_rows_that_are_all_alike_have_the_interval_of_so_many_images(right):
    shift, image = np.indices((3, 40))
    found = accuracy(np.full(120, right), shift.ravel(), image.ravel())
    assert found == wilson(40 * right, 40)
    assert found.low < found.high


@given(st.integers(0, 10**6))
def test_the_order_of_rows_and_the_names_of_codes_make_no_difference(seed):
    generator = np.random.default_rng(seed)
    values, shift, image = balanced(generator, 20, 3)
    order = generator.permutation(60)
    renamed = generator.permutation(20)[image]
    found = accuracy(values.ravel()[order], 2 - shift[order], renamed[order])
    np.testing.assert_allclose(found, accuracy(values.ravel(), shift, image), atol=1e-12)


def test_shifts_weigh_the_same_however_many_images_they_have():
    correct = np.array([1, 1, 1, 1, 0, 0], dtype=bool)
    shift, image = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1, 2, 3, 0, 1])
    assert accuracy(correct, shift, image).value == 0.5


def test_on_separate_images_the_errors_of_the_shifts_add_up():
    generator = np.random.default_rng(0)
    values = [generator.normal(size=5000), generator.normal(size=3000) * 3]
    shift = np.repeat([0, 1], [5000, 3000])
    found = mean_over_shifts(np.concatenate(values), shift, np.arange(8000))
    error = math.hypot(*(stats.sem(one) for one in values)) / 2
    np.testing.assert_allclose((found.high - found.low) / 2, 1.96 * error, rtol=1e-3)


def test_one_row_per_image_gives_wilson_and_repeats_do_not():
    correct = np.array([True, True, False])
    once = accuracy(correct, np.zeros(3, int), np.arange(3))
    assert once == wilson(2, 3)
    thrice = accuracy(np.tile(correct, 3), np.zeros(9, int), np.tile(np.arange(3), 3))
    assert thrice.value == once.value
    assert thrice != wilson(6, 9)


def test_repeating_the_same_rows_as_seeds_adds_no_certainty():
    correct = np.random.default_rng(0).random(200) < 0.7
    zeros, image = np.zeros(200, int), np.arange(200)
    once = mean_over_shifts(correct, zeros, image)
    many = mean_over_shifts(np.tile(correct, 5), np.tile(zeros, 5), np.tile(image, 5))
    np.testing.assert_allclose(many, once, atol=1e-12)


def test_one_image_under_two_shifts_has_a_value_and_no_interval():
    found = accuracy(np.array([True, False]), np.array([0, 1]), np.array([0, 0]))
    assert found.value == 0.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_no_row_is_refused():
    empty = np.array([], dtype=np.int64)
    with pytest.raises(BadInputError, match="at least one row"):
        accuracy(empty.astype(bool), empty, empty)


def test_the_interval_covers_the_truth_in_95_of_100_runs():
    generator = np.random.default_rng(1)
    # each image is right under a shift with its own probability, uniform in [0, 1]: the true mean is 0.5
    covered = 0
    for _ in range(1000):
        chance = generator.random(80)
        values = generator.random((4, 80)) < chance
        shift, image = np.indices((4, 80))
        found = accuracy(values.ravel(), shift.ravel(), image.ravel())
        covered += found.low <= 0.5 <= found.high
    assert 930 <= covered <= 970
