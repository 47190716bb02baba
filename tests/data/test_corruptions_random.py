# SPDX-License-Identifier: Apache-2.0
"""Corruptions with given random numbers against slow, literal versions of their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from tta_bench.data.corruptions import Options, corrupt
from tta_bench.data.corruptions.elastic import warp_of
from tta_bench.data.corruptions.engine import apply, make_setting
from tta_bench.data.corruptions.fog import haze_map, map_size
from tta_bench.data.corruptions.frost_texture import STYLES, generated_textures
from tta_bench.data.corruptions.glass import scatter_map
from tta_bench.data.corruptions.motion import _smear_batch, motion_filter, smear
from tta_bench.data.corruptions.spatter import chamfer_distance, find_edges, spatter_layer
from tta_bench.errors import BadInputError


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
        (width, height), Image.BICUBIC
    )
    return (np.asarray(coarse) + rng.normal(0, 8, (height, width, 3))).clip(0, 255).astype(np.uint8)


def batch(array):
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))[None]


def unbatch(images):
    return images[0].permute(1, 2, 0).numpy()


def applied(array, name, severity, draws, scale="imagenet", **options):
    setting = make_setting(name, severity, array.shape[:2], scale, Options(**options))
    return unbatch(
        apply(
            name, batch(array), {key: torch.as_tensor(value)[None] for key, value in draws.items()}, setting
        )
    )


def assert_near(found, expected, mean=0.02):
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert difference.mean() <= mean


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(32, 45), width=st.integers(32, 45), reach=st.integers(1, 4), sweeps=st.integers(1, 3),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_glass_maps_are_the_pixel_by_pixel_sweep(height, width, reach, sweeps, seed):
    rng = np.random.default_rng(seed)
    visited = (height - 2 * reach) * (width - 2 * reach)
    neighbours = rng.integers(-reach, reach, (2, sweeps, visited, 2))
    found = scatter_map(torch.from_numpy(neighbours), reach, height, width).view(2, -1)
    for one, moves in enumerate(neighbours):
        values = np.arange(height * width).reshape(height, width)
        for sweep in moves:
            step = iter(sweep)
            for row in range(height - reach, reach, -1):
                for column in range(width - reach, reach, -1):
                    dx, dy = next(step)
                    values[row, column] = values[row + dy, column + dx]
        assert np.array_equal(found[one].numpy() - one * height * width, values.ravel())


@pytest.mark.parametrize("angle", [-135.0, -90.0, -45.0, -10.0, 0.0, 30.0, 45.0])
@pytest.mark.parametrize(("severity", "scale"), [(1, "imagenet"), (5, "imagenet"), (4, "cifar")])
def test_motion_blur_is_a_sum_along_a_line(angle, severity, scale):
    array = picture(48, 56)
    setting = make_setting("motion_blur", severity, (48, 56), scale)
    radius, sigma = setting.constants
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    total = np.zeros(array.shape)
    rows, columns = np.mgrid[:48, :56]
    for i, weight in enumerate(weights / weights.sum()):
        down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        total += weight * array[(rows + down).clip(0, 47), (columns + right).clip(0, 55)]
    expected = (total.clip(0, 255) + (0.5 if scale == "cifar" else 0) + 1e-6).astype(np.uint8)
    assert_near(applied(array, "motion_blur", severity, {"angle_deg": angle}, scale), expected)


def test_motion_blur_rounds_on_request():
    array = picture(48, 48)
    mean = {
        how: applied(array, "motion_blur", 3, {"angle_deg": 20.0}, rounding=how).mean()
        for how in ("round", "truncate")
    }
    assert mean["round"] - mean["truncate"] == pytest.approx(0.5, abs=0.05)


def test_a_smear_longer_than_the_picture_loses_weight_at_imagenet_scale():
    assert sum(tap.weight for tap in smear(0.0, 20, 15.0, (32, 32))) < 0.99
    assert sum(tap.weight for tap in smear(0.0, 20, 15.0)) == pytest.approx(1, abs=1e-4)


def test_both_ways_to_smear_are_equal_to_float_rounding():
    pictures = torch.rand(5, 2, 40, 50, generator=torch.Generator().manual_seed(0)) * 255
    taps = [
        smear(angle, radius, 5.0, (40, 50))
        for angle, radius in zip((-120, -45, 0, 33, 45), (20, 8, 10, 3, 15), strict=True)
    ]
    assert torch.allclose(_smear_batch(pictures, taps), motion_filter(pictures, taps), atol=1e-4)


@pytest.mark.parametrize(("height", "width", "decay"), [(32, 32, 3.0), (50, 64, 1.4), (16, 33, 2.0)])
def test_the_haze_map_is_wrapped_diamond_square(height, width, decay):
    size = map_size(height, width)
    unit = np.random.default_rng(0).uniform(-1, 1, size * size - 1).astype(np.float32)
    step, amplitude, haze, numbers = size, 100.0, np.zeros((size, size)), iter(unit)
    while step >= 2:
        half = step // 2
        grid = range(0, size, step)
        for y in grid:
            for x in grid:
                corners = [haze[a % size, b % size] for a in (y, y + step) for b in (x, x + step)]
                haze[y + half, x + half] = np.mean(corners) + amplitude**2 * next(numbers)
        for y in grid:
            for x in grid:
                around = (
                    haze[y + half, x + half],
                    haze[y - half, x + half],
                    haze[y, x],
                    haze[y, (x + step) % size],
                )
                haze[y, x + half] = np.mean(around) + amplitude**2 * next(numbers)
        for y in grid:
            for x in grid:
                around = (
                    haze[y + half, x + half],
                    haze[y + half, x - half],
                    haze[y, x],
                    haze[(y + step) % size, x],
                )
                haze[y + half, x] = np.mean(around) + amplitude**2 * next(numbers)
        step, amplitude = half, amplitude / decay
    expected = (haze - haze.min()) / (haze.max() - haze.min())
    assert np.abs(haze_map(unit, decay, size) - expected).max() < 1e-5


def test_fog_keeps_the_brightest_value():
    array = picture(40, 40) // 2
    haze = np.random.default_rng(0).random((40, 40)).astype(np.float32)
    haze[0, 0] = 1
    array[0, 0] = array.max()
    found = applied(array, "fog", 5, {"haze": haze})
    unit, most = array / 255, array.max() / 255
    expected = ((unit + 3 * haze[..., None]) * most / (most + 3)).clip(0, 1) * 255 + 1e-6
    assert_near(found, expected.astype(np.uint8))
    assert found.max() == array.max()


@pytest.mark.parametrize(
    ("severity", "elastic"),
    [(1, "imagecorruptions"), (5, "imagecorruptions"), (1, "original"), (4, "original")],
)
def test_elastic_transform_samples_displaced_pixels(severity, elastic):
    array = picture(60, 72)
    rng = np.random.default_rng(1)
    setting = make_setting("elastic_transform", severity, (60, 72), "imagenet", Options(elastic=elastic))
    warp = warp_of(setting)
    draws = {"noise": rng.uniform(-warp.bound, warp.bound, (2, 60, 72)).astype(np.float32)}
    levels = array.astype(np.float64)
    if warp.jitter is not None:
        draws["jitter"] = rng.uniform(-warp.jitter, warp.jitter, (3, 2))
        levels = affine(levels, draws["jitter"])
    dx, dy = (
        ndimage.gaussian_filter(noise.astype(float), warp.sigma, mode="reflect", truncate=3) * warp.gain
        for noise in draws["noise"]
    )
    rows, columns = np.mgrid[:60, :72]
    planes = [
        ndimage.map_coordinates(levels[..., c], (rows + dy, columns + dx), order=1, mode="reflect")
        for c in range(3)
    ]
    expected = np.stack(planes, 2).clip(0, 255) + 1e-4
    assert_near(
        applied(array, "elastic_transform", severity, draws, elastic=elastic), expected.astype(np.uint8), 0.01
    )


def affine(levels, jitter):
    """Sample through the affine map of three points near the centre, (x, y), that moved by the jitter."""
    height, width = levels.shape[:2]
    reach = min(height, width) // 3
    points = np.array([height // 2, width // 2]) + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    solved = [
        np.linalg.solve(np.column_stack((points + jitter, np.ones(3))), points[:, axis]) for axis in (0, 1)
    ]
    rows, columns = np.mgrid[:height, :width]
    x, y = (a * columns + b * rows + c for a, b, c in solved)
    return np.stack(
        [ndimage.map_coordinates(levels[..., c], (y, x), order=1, mode="mirror") for c in range(3)], 2
    )


def test_snow_whitens_and_adds_the_flakes_twice():
    array = picture(48, 48)
    zoom_part = torch.full((16, 16), 0.0)
    setting = make_setting("snow", 1, (48, 48), "imagenet")
    share, unit = setting.constants[-1], array / 255
    found = applied(array, "snow", 1, {"noise": zoom_part, "angle_deg": -90.0})
    grey = unit @ [0.299, 0.587, 0.114]
    white = share * unit + (1 - share) * np.maximum(unit, 1.5 * grey[..., None] + 0.5)
    assert_near(found, (white.clip(0, 1) * 255 + 1e-6).astype(np.uint8))
    flakes = np.random.default_rng(0).normal(0.1, 0.3, (16, 16)).astype(np.float32)
    snowy = applied(array, "snow", 1, {"noise": flakes, "angle_deg": -90.0}).astype(int) - found
    assert snowy.min() >= 0
    free = (found.max(2) + snowy.max(2) < 250) & (found[::-1, ::-1].max(2) + snowy[::-1, ::-1].max(2) < 250)
    assert np.abs(snowy - snowy[::-1, ::-1])[free].max() <= 1


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), density=st.sampled_from([0.0, 0.002, 0.02, 0.2]))
def test_the_chamfer_distance_is_the_shortest_path_of_king_and_knight_moves(seed, density):
    edges = np.random.default_rng(seed).random((34, 41)) < density
    found = chamfer_distance(edges) / 65536
    rows, columns = np.mgrid[:34, :41]
    expected = np.full(edges.shape, 20.0)
    for y, x in zip(*np.nonzero(edges), strict=True):
        long, short = (f(abs(rows - y), abs(columns - x)) for f in (np.maximum, np.minimum))
        knights = np.where(
            2 * short <= long,
            (long - 2 * short) + 2.1969 * short,
            1.4 * (2 * short - long) + 2.1969 * (long - short),
        )
        expected = np.minimum(expected, knights)
    assert np.abs(found - expected).max() < 1e-3


def test_edges_follow_a_step_and_ignore_flat_and_faint_areas():
    levels = np.zeros((40, 40), np.int32)
    assert not find_edges(levels).any()
    levels[:, 20:] = 200
    edges = find_edges(levels)
    assert edges.any(1).all()
    assert set(np.nonzero(edges)[1].tolist()) <= {19, 20}
    assert not find_edges(levels // 20).any()


def test_weak_edges_count_only_where_they_touch_strong_ones():
    levels = np.zeros((40, 60), np.int32)
    levels[:20, 30:] = 25  # a weak step, connected to a strong one
    levels[20:, 30:] = 200
    joined = find_edges(levels)[:, 25:35]
    alone = np.zeros((40, 60), np.int32)
    alone[:, 30:] = 25
    assert joined[:15].any()
    assert not find_edges(alone).any()


def test_an_empty_layer_of_drops_leaves_the_picture_as_it_is():
    setting = make_setting("spatter", 1, (40, 40), "imagenet")
    cover = spatter_layer(np.zeros((40, 40), np.float32), setting)
    assert not cover.any()
    array = picture(40, 40)
    assert np.array_equal(applied(array, "spatter", 1, {"cover": cover}), array)


def test_mud_is_brown_where_it_covers():
    array = picture(40, 40)
    cover = np.zeros((40, 40), np.float32)
    cover[10:20] = 1
    found = applied(array, "spatter", 5, {"cover": cover})
    assert np.array_equal(found[10:20], np.broadcast_to([63, 42, 20], (10, 40, 3)))
    assert np.array_equal(found[20:], array[20:])


def test_frost_is_a_weighted_sum():
    array, ice = picture(40, 40), np.random.default_rng(0).integers(0, 256, (3, 40, 40), dtype=np.uint8)
    expected = (0.8 * array + 0.6 * ice.transpose(1, 2, 0) + 1e-6).clip(0, 255).astype(np.uint8)
    assert_near(applied(array, "frost", 2, {"texture": ice}), expected)


def test_generated_frost_has_the_statistics_of_its_styles():
    for texture, style in zip(generated_textures(), STYLES, strict=True):
        assert texture.shape == (*style.size, 3)
        assert texture.mean((0, 1)) == pytest.approx(style.mean, abs=3)
        assert texture.std((0, 1)) == pytest.approx(style.deviation, rel=0.1)
        light = texture @ [0.299, 0.587, 0.114]
        assert np.percentile(light, [10, 50, 90]) == pytest.approx(style.ranks[1:4], abs=10)
        centred = light - light.mean()
        beside = (centred[:, 1:] * centred[:, :-1]).mean() / centred.var()
        assert 0.75 < beside < 0.92
        assert (texture[..., 0] <= texture[..., 1]).mean() > 0.98
        assert (texture[..., 1] <= texture[..., 2]).mean() > 0.98


def test_frost_uses_the_pictures_of_a_folder(tmp_path):
    with pytest.raises(BadInputError, match="frost_dir"):
        corrupt(batch(picture(40, 40)), "frost", 1, 0, options=Options(frost_dir=tmp_path))
    red = np.zeros((50, 60, 3), np.uint8)
    red[..., 0] = 200
    other = tmp_path / "photographs"
    other.mkdir()
    Image.fromarray(red).save(other / "one.png")
    found = corrupt(
        torch.zeros(2, 3, 90, 80, dtype=torch.uint8), "frost", 5, 0, options=Options(frost_dir=other)
    )
    assert (found[:, 0] == 150).all()
    assert not found[:, 1:].any()
    assert torch.equal(
        found,
        corrupt(
            torch.zeros(2, 3, 90, 80, dtype=torch.uint8), "frost", 5, 0, options=Options(frost_dir=str(other))
        ),
    )
