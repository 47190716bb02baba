# SPDX-License-Identifier: Apache-2.0
"""Augmentations against torchvision's own, and what their parameters must and must not do."""

import math

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from tta_bench import augment as module
from tta_bench.augment import (
    STILL,
    Jitter,
    augment,
    draw_contrastive,
    draw_crops,
    draw_jitter,
    still,
    warp,
)

SHAPE = (3, 16, 32)
NONE = Jitter(0, 0, 0, 0, 0, 0, 0, 0, 0, "edge", None, 0)


@pytest.fixture
def images():
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))


def drawn(rows=1, ranges=None, seed=0, shape=SHAPE):
    return draw_jitter(rows, shape, torch.Generator().manual_seed(seed), ranges or Jitter())


def turn(angle, scale, x, y, flip, padding):
    row = (
        torch.tensor([math.radians(angle)]),
        torch.tensor([scale]),
        torch.tensor([[x, y]]),
        torch.tensor([flip]),
    )
    return module._folded(module._affine(SHAPE, *row), SHAPE, padding)


def test_still_parameters_change_no_bit(images):
    colours = {
        "colour": torch.tensor([STILL]),
        "order": torch.tensor([[3, 1, 0, 4, 2]]),
        "sigma": torch.zeros(1),
    }
    assert torch.equal(augment(images, {**still(SHAPE), **colours}), images)
    assert torch.equal(augment(images, drawn(ranges=NONE)), images)


def test_a_grid_moves_whole_pixels_exactly(images):
    grid = still(SHAPE)["grid"]
    assert torch.equal(warp(images, grid.flip(2)), images.flip(-1))
    assert torch.equal(warp(images, grid.roll((2, -3), (2, 1))), images.roll((2, -3), (-1, -2)))
    each = torch.cat([grid.roll(shift, 2) for shift in range(5)])
    assert torch.equal(warp(images, each), torch.stack([x.roll(i, -1) for i, x in enumerate(images)]))


@pytest.mark.parametrize("padding", ["edge", "reflect"])
@pytest.mark.parametrize("flip", [1.0, -1.0])
@pytest.mark.parametrize(
    ("angle", "scale", "x", "y"), [(10.0, 1.08, 0.06, -0.05), (-15.0, 0.9, -0.0625, 0.0625)]
)
def test_positions_are_those_of_padding_affine_and_crop(images, padding, flip, angle, scale, x, y):
    big = tv.pad(images, [32, 16, 32, 16], padding_mode="edge")
    if padding == "reflect":
        big = tv.pad(images, [16, 8, 16, 8], padding_mode="reflect")
    moved = tv.affine(
        big, angle, [x * 32, y * 16], scale, [0.0, 0.0], interpolation=InterpolationMode.BILINEAR
    )
    expected = tv.center_crop(moved, [16, 32])
    found = warp(images, turn(angle, scale, x, y, flip, padding))
    found = found.flip(-1) if flip < 0 else found
    # The rotated frame leaves the padded image at the far corners of a wide image.
    inside = (slice(None), slice(None), slice(3, -3), slice(6, -6))
    assert torch.allclose(found[inside], expected[inside], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "reference", "amounts"),
    [
        (0, tv.adjust_brightness, (0.6, 1.4)),
        (1, tv.adjust_contrast, (0.7, 1.3)),
        (2, tv.adjust_saturation, (0.0, 1.5)),
        (3, tv.adjust_hue, (-0.06, 0.4)),
        (4, tv.adjust_gamma, (0.7, 1.3)),
    ],
)
def test_colours_are_those_of_torchvision(images, change, reference, amounts):
    for amount in amounts:
        colour = torch.tensor([STILL])
        colour[0, change] = amount
        found = augment(images, {**still(SHAPE), "colour": colour, "order": torch.arange(5)[None]})
        assert torch.allclose(found, reference(images, amount), atol=2e-4)


def test_the_order_of_the_colours_is_that_of_each_row(images):
    colour = torch.tensor([[1.4, 0.7, 1.5, 0.06, 1.3], [0.6, 1.3, 0.5, -0.06, 0.7]])
    order = torch.tensor([[4, 3, 2, 1, 0], [1, 0, 4, 2, 3]])
    two = augment(images[:2], {"grid": still(SHAPE)["grid"], "colour": colour, "order": order})
    changes = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue, tv.adjust_gamma)
    for image, amounts, steps, found in zip(images[:2], colour, order, two, strict=True):
        expected = image
        for step in steps.tolist():
            expected = changes[step](expected, float(amounts[step]))
        assert torch.allclose(found, expected, atol=5e-4)


def test_the_blur_is_torchvisions_away_from_the_edge(images):
    for sigma in (0.4, 0.5):
        found = augment(images, {**still(SHAPE), "sigma": torch.tensor([sigma])})
        expected = tv.gaussian_blur(images, [5, 5], [sigma, sigma])
        assert torch.allclose(found[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-5)
    each = augment(images, {**still(SHAPE), "sigma": torch.tensor([0.0, 1.0, 2.0, 0.0, 0.5])})
    assert torch.equal(each[0], images[0])
    assert each[2].var() < each[1].var() < images[2].var()


def test_draws_fill_their_ranges_and_no_more():
    ranges = Jitter()
    draws = drawn(2000, ranges)
    reach = torch.tensor([ranges.brightness, ranges.contrast, ranges.saturation, ranges.hue, ranges.gamma])
    away = (draws["colour"] - torch.tensor(STILL)) / reach
    assert away.abs().max() <= 1 + 1e-5
    assert torch.all(away.amax(0) > 0.98)
    assert torch.all(away.amin(0) < -0.98)
    assert 0.001 <= draws["sigma"].min() < 0.01
    assert 0.49 < draws["sigma"].max() <= 0.5
    assert torch.equal(draws["order"].sort(-1).values, torch.arange(5).expand(2000, -1))
    flipped = (draws["grid"][:, 8, 0, 0] > draws["grid"][:, 8, -1, 0]).float().mean()
    assert 0.46 < flipped < 0.54
    assert draws["noise"].std().item() == pytest.approx(0.005, rel=0.01)


def test_equal_generators_give_equal_draws():
    for make in (lambda g: draw_jitter(2, SHAPE, g, Jitter()), lambda g: draw_contrastive(2, SHAPE, g)):
        first, second = (make(torch.Generator().manual_seed(4)) for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_one_row_serves_all_images_as_rows_of_their_own_do(images):
    draws = drawn(1, Jitter(padding="reflect"))
    repeated = {name: value.expand(5, *value.shape[1:]) for name, value in draws.items()}
    assert torch.allclose(augment(images, draws), augment(images, repeated), atol=1e-6)
    alone = torch.cat([augment(image[None], draws) for image in images])
    assert torch.allclose(augment(images, draws), alone, atol=1e-6)


def test_a_crop_shows_the_part_that_was_drawn(images):
    grid = draw_crops(500, SHAPE, torch.Generator().manual_seed(0), (0.2, 1.0))["grid"]
    assert grid.abs().max() <= 1
    spans = (grid[:, -1, -1] - grid[:, 0, 0]).abs() * torch.tensor([32 / 31, 16 / 15]) / 2
    area = spans.prod(-1)
    assert 0.15 < area.min() < 0.25  # in whole pixels, and without half a pixel at the edges
    assert 0.6 < area.max() < 0.7  # a box of 21 x 16 is the largest with the aspect 4/3
    whole = draw_crops(1, SHAPE, torch.Generator().manual_seed(0), (1.0, 1.0), flip=0.0, ratio=(2.0, 2.0))
    assert torch.allclose(augment(images, whole), images, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_keep_their_hue(channels):
    shape = (channels, 8, 8)
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))
    made = augment(images, drawn(1, shape=shape))
    assert made.shape == images.shape
    assert made.min() >= 0
    assert made.max() <= 1
    assert torch.equal(
        augment(
            images,
            {**still(shape), "colour": torch.tensor([[1, 1, 1, 0.3, 1.0]]), "order": torch.arange(5)[None]},
        ),
        images,
    )


def test_the_images_type_is_kept(images):
    assert augment(images.double(), drawn()).dtype == torch.float64
