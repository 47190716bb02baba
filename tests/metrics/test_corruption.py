# SPDX-License-Identifier: Apache-2.0
"""Corruption error against the sums of its definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tta_bench.errors import BadInputError
from tta_bench.metrics.corruption import corruption_error

RATES = {"fog": [0.3, 0.5], "snow": [0.2, 0.4]}
REFERENCE = {"snow": [0.4, 0.4], "fog": [0.5, 0.5]}


def test_it_is_the_mean_of_ratios_of_sums():
    assert corruption_error(RATES, REFERENCE) == pytest.approx((0.8 / 1.0 + 0.6 / 0.8) / 2)


def test_the_relative_one_subtracts_the_clean_errors():
    found = corruption_error(RATES, REFERENCE, clean=0.1, reference_clean=0.2)
    assert found == pytest.approx((0.6 / 0.6 + 0.4 / 0.4) / 2)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5))
def test_a_model_is_exactly_as_robust_as_itself(rates):
    assert corruption_error({"fog": rates}, {"fog": rates}) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("errors", "reference", "clean", "words"),
    [
        ({}, {}, {}, "same corruptions"),
        (RATES, {"fog": [0.5, 0.5]}, {}, "same corruptions"),
        ({"fog": [0.1]}, {"fog": [0.1, 0.2]}, {}, "same severities"),
        ({"fog": [0.1]}, {"fog": [0.0]}, {}, "should err more under fog"),
        (RATES, REFERENCE, {"clean": 0.1}, "clean error of both"),
        (RATES, REFERENCE, {"clean": 0.1, "reference_clean": 0.9}, "should err more"),
    ],
)
def test_what_cannot_be_compared_is_refused(errors, reference, clean, words):
    with pytest.raises(BadInputError, match=words):
        corruption_error(errors, reference, **clean)
