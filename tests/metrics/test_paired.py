# SPDX-License-Identifier: Apache-2.0
"""Paired tests agree with statsmodels and scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from tta_bench.errors import BadInputError
from tta_bench.metrics.paired import bootstrap_mean, holm, mcnemar, sign_flip


def columns(both, only_first, only_second, neither):
    counts = (both, only_first, only_second, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@given(*[st.integers(0, 60)] * 4)
def test_exact_mcnemar_is_that_of_statsmodels(both, only_first, only_second, neither):
    found = mcnemar(*columns(both, only_first, only_second, neither), method="exact")
    reference = reference_mcnemar([[both, only_first], [only_second, neither]], exact=True)
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p == pytest.approx(reference.pvalue, abs=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mid_p_takes_half_of_the_observed_split(only_first, only_second):
    first, second = columns(3, only_first, only_second, 4)
    exact, mid = (mcnemar(first, second, method=method).p for method in ("exact", "mid-p"))
    total, split = only_first + only_second, min(only_first, only_second)
    one_sided = (
        sum(stats.binom.pmf(k, total, 0.5) for k in range(split)) + stats.binom.pmf(split, total, 0.5) / 2
    )
    assert mid == pytest.approx(min(1.0, 2 * one_sided), abs=1e-12)
    assert mid <= exact
    assert mid == pytest.approx(mcnemar(second, first).p, abs=1e-12)


def test_mid_p_of_a_published_example():
    # Fagerland et al. (2013), airway hyper-responsiveness: 1 and 7 discordant pairs of 21; exact .070, mid-p .039
    first, second = columns(1, 1, 7, 12)
    assert round(mcnemar(first, second, method="exact").p, 3) == 0.07
    assert round(mcnemar(first, second).p, 3) == 0.039


def by_hand(values):
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_the_step_down_rule(values):
    assert holm(values) == pytest.approx(by_hand(values), abs=1e-12)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50), st.integers(0, 100))
def test_a_bootstrap_repeats_and_stays_within_the_data(values, seed):
    found = bootstrap_mean(np.array(values), seed=seed, resamples=200)
    assert found == bootstrap_mean(np.array(values), seed=seed, resamples=200)
    assert found.value == pytest.approx(np.mean(values), abs=1e-12)
    assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12


@given(st.permutations(range(12)))
def test_the_order_of_images_makes_no_difference_to_a_bootstrap(order):
    values = np.array([0, 1, 1, -1, 0, 0, 1, 0.5, -0.5, 1, 0, 0])
    assert bootstrap_mean(values[list(order)], resamples=50) == bootstrap_mean(values, resamples=50)


def test_a_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=400, p=[0.1, 0.6, 0.3])
    found = bootstrap_mean(values, resamples=20_000)
    # The name of scipy's argument for the generator depends on its version, so its default is used: any will do.
    reference = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile"
    ).confidence_interval
    np.testing.assert_allclose((found.low, found.high), reference, atol=0.005)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_no_image_is_refused():
    with pytest.raises(BadInputError, match="at least one image"):
        bootstrap_mean(np.array([]))


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=60))
def test_sign_flip_of_single_answers_is_mcnemar(changes):
    changes = np.array(changes)
    first, second = changes < 0, changes > 0
    assert sign_flip(changes) == pytest.approx(mcnemar(first, second).p, abs=1e-12)


@given(st.lists(st.sampled_from([k / 6 for k in range(-6, 7)]), min_size=1, max_size=9))
def test_sign_flip_counts_all_flips(changes):
    changes = np.array(changes)
    signs = np.array(list(itertools.product((-1, 1), repeat=len(changes))))
    sums, observed = np.rint(6 * np.abs(signs @ changes)), np.rint(6 * abs(changes.sum()))
    expected = np.mean(sums > observed) + np.mean(sums == observed) / (2 if observed else 1)
    assert sign_flip(changes) == pytest.approx(expected, abs=1e-9)


def test_sign_flip_of_many_images_stays_exact_and_positive():
    assert 0 < sign_flip(np.full(3000, 1 / 15)) < 1e-9
    assert sign_flip(np.zeros(5)) == 1.0
