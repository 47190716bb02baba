# SPDX-License-Identifier: Apache-2.0
"""The random numbers: their distributions, and that a key gives the same ones for good."""

import hashlib

import numpy as np
import pytest
import torch
from scipy import stats

from tta_bench.data.corruptions import corrupt
from tta_bench.data.corruptions.rng import Stream, image_key


def stream(number=0):
    return Stream(image_key(number, 0, "test", 1))


def test_the_key_separates_all_of_its_parts():
    keys = [
        image_key(*parts)
        for parts in [
            (0, 1, "a", 1),
            (1, 1, "a", 1),
            (0, 2, "a", 1),
            (0, "1", "a", 1),
            (0, 1, "b", 1),
            (0, 1, "a", 2),
        ]
    ]
    assert len({key.tobytes() for key in keys}) == len(keys)
    assert np.array_equal(image_key(0, np.int64(1), "a", 1), keys[0])


def test_normal_numbers_are_normal_in_the_middle_and_in_the_tails():
    values = np.concatenate([stream(i).normal(400_000) for i in range(5)]).astype(np.float64)
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(values.mean()) < 0.004
    assert abs(values.var() - 1) < 0.006
    assert abs(stats.kurtosis(values)) < 0.02
    for edge in (3.0, 4.0, 4.5):
        expected = 2 * stats.norm.sf(edge) * len(values)
        assert abs((np.abs(values) > edge).sum() - expected) < 5 * np.sqrt(expected) + 1


def test_uniform_numbers_fill_their_range():
    values = stream().uniform(-3, 5, 200_000)
    assert values.min() > -3
    assert values.max() < 5
    assert stats.kstest(values, stats.uniform(-3, 8).cdf).pvalue > 1e-3


def test_offsets_are_uniform_from_minus_reach_to_reach_minus_one():
    for reach in (1, 2, 3, 4):
        counts = np.bincount(stream().offsets(reach, 60_000).astype(int) + reach, minlength=2 * reach)
        assert len(counts) == 2 * reach
        assert stats.chisquare(counts).pvalue > 1e-3


def test_integers_have_the_bits_they_promise():
    assert stream().uint31(100_000).min() >= 0
    assert stream().uint31(100_000).max() > 2**31 - 2**18
    assert stats.chisquare(np.bincount(stream().uint16(500_000) >> 8, minlength=256)).pvalue > 1e-3


def test_the_numbers_of_a_key_never_change():
    """Corrupted data sets are named by their seed, so a change here would silently make other ones."""
    drawn = stream(3)
    found = hashlib.sha256()
    for values in (drawn.uint16(7), drawn.uint31(5), drawn.uniform(0, 1, 9), drawn.offsets(3, 11)):
        found.update(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes())
    assert found.hexdigest() == "ff37bf9036ec4790358347b94b57ad457115eb84a319044d00e303cb98ba216b"


@pytest.mark.parametrize(("severity", "photons"), [(1, 60), (5, 3)])
def test_shot_noise_is_poisson(severity, photons):
    for level in (3, 40, 128, 255):
        images = torch.full((4, 3, 128, 128), level, dtype=torch.uint8)
        values = corrupt(images, "shot_noise", severity, level).numpy().ravel()
        rate = level / 255 * photons
        counts = np.arange(photons + 1)
        outcome = (counts / photons * 255).astype(np.uint8)
        chance = np.append(stats.poisson.pmf(counts[:-1], rate), stats.poisson.sf(photons - 1, rate))
        seen = np.array([(values == value).sum() for value in outcome])
        assert seen.sum() == values.size
        likely = chance * values.size > 5
        rest = [values.size - seen[likely].sum() + 1e-9, (1 - chance[likely].sum()) * values.size + 1e-9]
        observed, expected = (
            np.append(seen[likely], rest[0]),
            np.append(chance[likely] * values.size, rest[1]),
        )
        assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-4


def test_impulse_noise_replaces_the_share_half_by_black_half_by_white():
    images = torch.full((8, 3, 128, 128), 100, dtype=torch.uint8)
    for severity, share in enumerate((0.03, 0.06, 0.09, 0.17, 0.27), 1):
        out = corrupt(images, "impulse_noise", severity, 0, scale="imagenet")
        error = 4 * (share / 2 * (1 - share / 2) / images.numel()) ** 0.5
        assert abs((out == 0).float().mean() - share / 2) < error
        assert abs((out == 255).float().mean() - share / 2) < error
        assert set(out.unique().tolist()) == {0, 100, 255}


def test_gaussian_and_speckle_noise_have_their_deviation():
    images = torch.full((8, 3, 128, 128), 128, dtype=torch.uint8)
    noisy = corrupt(images, "gaussian_noise", 1, 0, scale="imagenet").double()
    assert noisy.mean() == pytest.approx(128 - 0.5, abs=0.15)  # truncation takes half a level
    assert noisy.std() == pytest.approx(0.08 * 255, rel=0.01)
    speckled = corrupt(images, "speckle_noise", 1, 0, scale="imagenet").double()
    assert speckled.std() == pytest.approx(0.15 * 128, rel=0.01)
