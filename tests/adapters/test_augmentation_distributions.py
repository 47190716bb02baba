# SPDX-License-Identifier: Apache-2.0
"""What every method draws for its augmentations, against what the published transforms draw.

The reference is torchvision's own sampling, which the published code calls: `RandomAffine.get_params` on an image
padded by half its side, `RandomResizedCrop.get_params`, and uniform factors.
"""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp, kstest
from torchvision.transforms import RandomAffine, RandomResizedCrop

from tta_bench.augment import BRIGHTNESS, CONTRAST, GAMMA, HUE, SATURATION
from tta_bench.data.images.distortions import LEVELS, affine_maps
from tta_bench.data.images.views import CHAINS, CROP_NUMBERS, DEPTH, MIX_NUMBERS, view_numbers
from tta_bench.hyperparameters import create_method
from tta_bench.testing import tiny_source

SIDE, ROWS, LEAST = 32, 1500, 1e-4
PADDED = 2 * SIDE
METHODS = {
    "cotta": dict(padding="edge", blur=True),
    "rotta": dict(padding="edge", blur=True),
    "rmt": dict(padding="edge", blur=True),
    "santa": dict(padding="edge", blur=True),
    "roid": dict(padding="reflect", blur=False),
    "cmf": dict(padding="reflect", blur=False),
}
"""The methods whose published code shares CoTTA's transforms; ROID and CMF mirror the edge and do not blur."""


@pytest.fixture(scope="module", autouse=True)
def _global_numbers():
    """Let the references draw from a seed, and leave the global state as it was."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    yield
    torch.set_rng_state(state)


@cache
def drawn(name):
    """The parameters of ``ROWS`` augmentations of a method, each a tensor with one row per augmentation."""
    source, generator = tiny_source("batch", size=(3, SIDE, SIDE)), torch.Generator().manual_seed(1)
    method, rows, found = create_method(name, {}), 0, []
    while rows < ROWS:
        draws = method.draw(source, 64, generator)
        draws = draws.get("views", draws)
        flat = {
            key: value.reshape(-1, *value.shape[value.ndim - RANK[key] :]) for key, value in draws.items()
        }
        found.append(flat)
        rows += len(flat["grid"])
    return {key: torch.cat([one[key] for one in found])[:ROWS] for key in found[0]}


RANK = {"grid": 3, "colour": 1, "order": 1, "sigma": 0, "noise": 3}


def geometry(grids):
    """Angle (degrees), scale, flip and translation (pixels) of grids, read off their middle, which no edge folds."""
    middle = slice(SIDE // 2 - 3, SIDE // 2 + 3)
    axis = (2 * torch.arange(SIDE) + 1) / SIDE - 1
    x, y = torch.meshgrid(axis[middle], axis[middle], indexing="xy")
    base = torch.stack([x.flatten(), y.flatten(), torch.ones(36)], -1).double()
    places = grids[:, middle, middle].reshape(len(grids), 36, 2).double()
    fit = torch.linalg.lstsq(base.expand(len(grids), -1, -1), places).solution.transpose(1, 2)
    flip = torch.where(torch.linalg.det(fit[:, :, :2]) < 0, -1.0, 1.0).double()
    turn = fit[:, :, :2] * torch.stack([flip, torch.ones_like(flip)], -1)[:, None]
    scale = 1 / torch.linalg.det(turn).sqrt()
    angle = torch.rad2deg(torch.atan2(turn[:, 0, 1], turn[:, 0, 0]))
    shift = -torch.linalg.solve(turn, fit[:, :, 2:])[:, :, 0] * SIDE / 2
    return angle.numpy(), scale.numpy(), (flip < 0).numpy(), shift.numpy()


def alike(found, reference):
    assert ks_2samp(np.asarray(found), np.asarray(reference)).pvalue > LEAST


def uniform(values, low, high):
    values = np.asarray(values, dtype=np.float64)
    assert values.min() >= low - 1e-6
    assert values.max() <= high + 1e-6
    assert kstest(values, "uniform", args=(low, high - low)).pvalue > LEAST


def share(found, expected):
    count = int(np.sum(found))
    assert (
        chisquare([count, len(found) - count], [len(found) * expected, len(found) * (1 - expected)]).pvalue
        > LEAST
    )


@pytest.mark.parametrize("name", METHODS)
def test_positions_are_those_of_the_padded_affine_transform(name):
    angle, scale, flip, shift = geometry(drawn(name)["grid"])
    sides = [PADDED, PADDED]
    draws = [
        RandomAffine.get_params([-15, 15], (1 / 16, 1 / 16), (0.9, 1.1), None, sides) for _ in range(ROWS)
    ]
    alike(angle, [one[0] for one in draws])
    alike(scale, [one[2] for one in draws])
    share(flip, 0.5)
    for axis in (0, 1):
        pixels = np.rint(shift[:, axis])
        assert np.abs(shift[:, axis] - pixels).max() < 1e-2, "whole pixels"
        assert np.abs(pixels).max() == 4
        counts = [np.sum(pixels == k) for k in range(-4, 5)]
        expected = np.array([0.5, *[1] * 7, 0.5]) / 8 * ROWS  # a uniform number from -4 to 4, rounded
        assert chisquare(counts, expected).pvalue > LEAST
        reference = [sum(one[1][axis] == k for one in draws) for k in range(-4, 5)]
        assert chisquare(reference, expected).pvalue > LEAST


@pytest.mark.parametrize("name", METHODS)
def test_colours_blur_and_noise_are_those_of_the_published_jitter(name):
    draws = drawn(name)
    ranges = {
        BRIGHTNESS: (0.6, 1.4),
        CONTRAST: (0.7, 1.3),
        SATURATION: (0.5, 1.5),
        HUE: (-0.06, 0.06),
        GAMMA: (0.7, 1.3),
    }
    for change, (low, high) in ranges.items():
        uniform(draws["colour"][:, change], low, high)
    for place in range(5):
        counts = np.bincount(draws["order"][:, place], minlength=5)
        assert chisquare(counts).pvalue > LEAST
    assert ("sigma" in draws) == ("noise" in draws) == METHODS[name]["blur"]
    if METHODS[name]["blur"]:
        uniform(draws["sigma"], 0.001, 0.5)
        noise = draws["noise"].flatten()[:20000] / 0.005
        assert kstest(noise, "norm").pvalue > LEAST
    outside = bool((draws["grid"].abs() > 1).any())
    assert outside == (METHODS[name]["padding"] == "edge"), (
        "an edge is repeated outside, a mirror stays inside"
    )


def boxes(grids):
    """Top, left, height and width in pixels, and the flip, of crops that are grids."""
    x, y = grids[:, 0, :, 0].double(), grids[:, :, 0, 1].double()
    flip = x[:, 0] > x[:, -1]
    sizes = [(axis[:, SIDE // 2] - axis[:, SIDE // 2 - 1]).abs() * SIDE / 2 * SIDE for axis in (y, x)]
    rows, columns = (torch.round(size) for size in sizes)
    middle = [(axis[:, SIDE // 2] + axis[:, SIDE // 2 - 1]) / 2 for axis in (y, x)]
    top, left = ((m + 1) * SIDE / 2 - size / 2 for m, size in zip(middle, (rows, columns), strict=True))
    return [part.numpy() for part in (top, left, rows, columns, flip)]


def reference_boxes(area, ratio=(3 / 4, 4 / 3)):
    image = torch.empty(3, SIDE, SIDE)
    return np.array([RandomResizedCrop.get_params(image, list(area), list(ratio)) for _ in range(2000)]).T


@cache
def adacontrast():
    source, generator = tiny_source("batch", size=(3, SIDE, SIDE)), torch.Generator().manual_seed(2)
    return create_method("adacontrast", {}).draw(source, 2000, generator)


@pytest.mark.parametrize("copy", ["query", "key"])
def test_adacontrasts_strong_copies_are_those_of_moco(copy):
    draws = adacontrast()[copy]
    top, left, rows, columns, flip = boxes(draws["grid"])
    for found, reference in zip((top, left, rows, columns), reference_boxes((0.2, 1.0)), strict=True):
        alike(np.rint(found), reference)
    alike(rows * columns, np.prod(reference_boxes((0.2, 1.0))[2:], axis=0))
    share(flip, 0.5)
    order = draws["order"]
    grey = (draws["colour"][:, SATURATION] == 0).numpy()
    share(grey, 0.2)
    assert torch.all(order[torch.from_numpy(grey), -1] == SATURATION), "grey comes after the jitter"
    moved = (draws["colour"][:, HUE] != 0).numpy()
    share(moved, 0.8)
    for change, (low, high) in {BRIGHTNESS: (0.6, 1.4), CONTRAST: (0.6, 1.4), HUE: (-0.1, 0.1)}.items():
        uniform(draws["colour"][moved, change], low, high)
    uniform(draws["colour"][moved & ~grey, SATURATION], 0.6, 1.4)
    blurred = (draws["sigma"] > 0).numpy()
    share(blurred, 0.5)
    uniform(draws["sigma"][blurred] * 224 / SIDE, 0.1, 2.0)


def test_adacontrasts_weak_copies_are_crops_of_seven_eighths():
    top, left, rows, columns, flip = boxes(adacontrast()["weak"]["grid"])
    assert set(rows) == set(columns) == {28}
    for place in (top, left):
        assert chisquare(np.bincount(np.rint(place).astype(int), minlength=5)).pvalue > LEAST
    share(flip, 0.5)


@pytest.mark.parametrize("name", ["memo", "ttaug"])
def test_augmix_views_mix_as_published(name):
    assert create_method(name, {}).view_policy().kind == "augmix"
    numbers = view_numbers("augmix", 4001, torch.Generator().manual_seed(3))
    uniform_share, weight, depth, rest = torch.split(numbers[:, CROP_NUMBERS:], MIX_NUMBERS, dim=1)
    uniform(uniform_share[:, 0], 0, 1)  # Beta(1, 1)
    exponential = -torch.log1p(-weight)
    first = (exponential / exponential.sum(1, keepdim=True))[:, 0]
    assert kstest(first, "beta", args=(1, 2)).pvalue > LEAST  # the margin of Dirichlet(1, 1, 1)
    lengths = (depth * DEPTH).long().flatten().numpy() + 1
    assert chisquare(np.bincount(lengths, minlength=DEPTH + 1)[1:]).pvalue > LEAST
    level = torch.unflatten(rest, 1, (3, CHAINS, DEPTH))[:, 1].flatten()
    strength = LEVELS[0] + (LEVELS[1] - LEVELS[0]) * level
    uniform(strength, 0.1, 1.0)
    kinds = torch.full((len(strength),), 1)
    shear = affine_maps(kinds, strength, torch.zeros(len(strength), dtype=torch.bool), SIDE, SIDE)[:, 0, 1]
    uniform(shear, 0.003, 0.03)
