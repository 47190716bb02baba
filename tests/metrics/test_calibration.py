# SPDX-License-Identifier: Apache-2.0
"""Calibration error agrees with torchmetrics and with simple cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from tta_bench.errors import BadInputError
from tta_bench.metrics.calibration import expected_calibration_error


@given(st.integers(1, 300), st.integers(0, 10**6), st.sampled_from([5, 10, 15]))
def test_it_is_that_of_torchmetrics(rows, seed, bins):
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.0, 0.999, rows)
    correct = generator.random(rows) < confidence**2
    # torchmetrics takes the confidence itself as the prediction of the binary event "correct"
    reference = binary_calibration_error(
        torch.from_numpy(confidence), torch.from_numpy(correct.astype(np.int64)), n_bins=bins, norm="l1"
    )
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(float(reference), abs=1e-6)


def test_perfect_and_worst_confidence():
    correct = np.array([True, False, True, False])
    assert expected_calibration_error(correct.astype(float), correct) == 0.0
    assert expected_calibration_error(1 - correct.astype(float), correct) == 1.0


def test_gaps_are_weighed_by_the_rows_of_their_bin():
    confidence = np.array([0.9, 0.9, 0.9, 0.1])
    correct = np.array([True, True, False, True])
    assert expected_calibration_error(confidence, correct) == pytest.approx((3 * (0.9 - 2 / 3) + 0.9) / 4)


@given(st.permutations(range(10)))
def test_the_order_of_rows_makes_no_difference(order):
    confidence, correct = np.linspace(0, 1, 10), np.arange(10) % 3 == 0
    shuffled = expected_calibration_error(confidence[list(order)], correct[list(order)])
    assert shuffled == pytest.approx(expected_calibration_error(confidence, correct), abs=1e-12)


def test_what_is_not_finite_gives_nan_and_what_is_no_probability_is_refused():
    assert math.isnan(expected_calibration_error(np.array([0.5, np.nan]), np.array([True, True])))
    assert math.isnan(expected_calibration_error(np.array([]), np.array([], dtype=bool)))
    with pytest.raises(BadInputError, match="lie in"):
        expected_calibration_error(np.array([1.5]), np.array([True]))
