# SPDX-License-Identifier: Apache-2.0
"""Agreement and islands on fields whose regions are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label

from tta_bench.metrics.islands import agree, agreement, chance, effective_dimension, islands, unit_rows


def regions(seed, height, width, kinds):
    """Return a field of `kinds` orthogonal features, and which of them each location has."""
    numbers = np.random.default_rng(seed).integers(0, kinds, (height, width))
    return np.eye(kinds + 2)[numbers] * 3.0, numbers


@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 9), st.integers(1, 4))
def test_the_islands_of_a_field_are_its_regions(seed, height, width, kinds):
    field, numbers = regions(seed, height, width, kinds)
    found, places = islands(unit_rows(field), 0.5)
    expected = sum(label(numbers == kind)[1] for kind in range(kinds))
    assert found.number == expected
    assert found.mean_size == pytest.approx(height * width / expected)
    for kind in range(kinds):
        parts, count = label(numbers == kind)
        for part in range(1, count + 1):
            assert len(np.unique(places[parts == part])) == 1


def test_agreement_is_one_inside_and_chance_outside():
    field = np.zeros((4, 8, 2))
    field[:, :4, 0], field[:, 4:, 1] = 2.0, 5.0
    unit = unit_rows(field)
    assert agreement(unit[:, :4]) == 1.0
    assert agreement(unit[:, 3:5]) == pytest.approx(
        6 / 10
    )  # 6 pairs down agree, 4 across the border are orthogonal
    assert chance(unit) == pytest.approx(15 / 31)
    assert islands(unit, 0.9)[0] == (2.0, 16.0)


@given(st.integers(0, 10_000))
def test_on_shuffled_locations_agreement_is_chance_within_its_interval(seed):
    generator = np.random.default_rng(seed)
    field = unit_rows(generator.normal(size=(6, 6, 5)) + generator.normal(size=5))
    flat = field.reshape(-1, 5)
    draws = [agreement(flat[generator.permutation(36)].reshape(6, 6, 5)) for _ in range(200)]
    error = np.std(draws, ddof=1) / np.sqrt(len(draws))
    assert abs(np.mean(draws) - chance(field)) < 6 * error + 1e-12


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_dimension_counts_the_directions_that_vary_alike(seed, kinds):
    signs = np.concatenate([np.eye(kinds), -np.eye(kinds)])
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))[0]
    field = np.pad(signs, ((0, 0), (0, 8 - kinds))) @ rotation + 7.0
    assert effective_dimension(field[None]) == pytest.approx(kinds)
    assert effective_dimension(np.ones((3, 3, 4))) == 0.0


def test_a_map_agrees_more_than_its_shuffles_where_it_has_regions():
    found = agree(regions(3, 8, 8, 1)[0], 0.5, np.random.default_rng(0))
    assert (found.agreement, found.chance, found.islands.number, found.size_over_chance) == (
        1.0,
        1.0,
        1.0,
        1.0,
    )
    field = np.repeat(np.eye(4)[:, None], 8, 1).repeat(2, 0)
    striped = agree(field, 0.5, np.random.default_rng(0))
    assert striped.islands == (4.0, 16.0)
    assert striped.chance == pytest.approx(4 * 16 * 15 / (64 * 63))
    assert striped.size_over_chance > 3
