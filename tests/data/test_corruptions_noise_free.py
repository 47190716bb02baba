# SPDX-License-Identifier: Apache-2.0
"""Corruptions without randomness against plain definitions and other libraries."""

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from tta_bench.data.corruptions import Options, corrupt
from tta_bench.data.corruptions.constants import CONSTANTS
from tta_bench.data.corruptions.defocus import disk_kernel
from tta_bench.data.corruptions.filters import extend, gaussian_filter
from tta_bench.data.corruptions.jpeg import jpeg_roundtrip
from tta_bench.data.corruptions.jpeg_integer import jpeg_integer
from tta_bench.data.corruptions.pixelate import pixelate_planes, shrink_integer
from tta_bench.data.corruptions.zoom import zoom_factors

SIZES = {"height": st.integers(32, 100), "width": st.integers(32, 100), "seed": st.integers(0, 99)}


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
        (width, height), Image.BICUBIC
    )
    fine = np.asarray(coarse) + rng.normal(0, 6 * (seed % 3), (height, width, 3))
    return fine.clip(0, 255).astype(np.uint8)


def batch(array):
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))[None]


def ours(array, name, severity, scale="imagenet", **others):
    return corrupt(batch(array), name, severity, 0, scale=scale, **others)[0].permute(1, 2, 0).numpy()


def truncated(unit):
    return (unit.clip(0, 1) * 255 + 1e-7).astype(np.uint8)


def assert_near(found, expected, mean=0.02):
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert difference.mean() <= mean


def through_pillow(array, quality):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


@settings(max_examples=40, deadline=None)
@given(quality=st.integers(1, 100), **SIZES)
def test_both_jpeg_paths_are_the_codec_bit_for_bit(quality, height, width, seed):
    arrays = [picture(height, width, seed), picture(height, width, seed + 1)]
    expected = np.stack([through_pillow(array, quality) for array in arrays]).transpose(0, 3, 1, 2)
    images = torch.cat([batch(array) for array in arrays])
    assert np.array_equal(jpeg_integer(images, quality).numpy(), expected)
    assert np.array_equal(jpeg_roundtrip(images, quality).numpy(), expected)


def test_the_integer_jpeg_survives_extreme_pictures():
    rng = np.random.default_rng(0)
    for array in (
        rng.integers(0, 2, (48, 50, 3), dtype=np.uint8) * 255,
        np.kron(rng.integers(0, 2, (7, 6, 3), dtype=np.uint8) * 255, np.ones((8, 8, 1), np.uint8)),
        np.zeros((32, 33, 3), np.uint8),
        np.full((33, 32, 3), 255, np.uint8),
    ):
        for quality in (1, 7, 50, 100):
            found = jpeg_integer(batch(array), quality)[0].permute(1, 2, 0).numpy()
            assert np.array_equal(found, through_pillow(array, quality))


def test_the_distributed_files_are_emulated_by_jpeg_85():
    array = picture(64, 80, 1)
    for name in ("gaussian_noise", "contrast"):
        plain = ours(array, name, 3)
        emulated = ours(array, name, 3, options=Options(emulate_distributed=True))
        assert np.array_equal(emulated, through_pillow(plain, 85))


@settings(max_examples=40, deadline=None)
@given(share=st.sampled_from([0.95, 0.9, 0.75, 0.6, 0.5, 0.4, 0.3, 0.25]), count=st.integers(1, 9), **SIZES)
def test_pixelate_is_pillow_box_down_and_nearest_up(share, count, height, width, seed):
    planes = np.random.default_rng(seed).integers(0, 256, (count, height, width), dtype=np.uint8)
    low, narrow = int(height * share), int(width * share)
    small = [Image.fromarray(plane).resize((narrow, low), Image.BOX) for plane in planes]
    expected = np.stack([np.asarray(image.resize((width, height), Image.NEAREST)) for image in small])
    assert np.array_equal(pixelate_planes(planes, low, narrow), expected)


@settings(max_examples=40, deadline=None)
@given(
    share=st.sampled_from([0.95, 0.85, 0.6, 0.4, 0.3, 0.25]),
    size=st.integers(32, 150),
    seed=st.integers(0, 99),
)
def test_the_integer_area_average_is_pillow_box(share, size, seed):
    plane = np.random.default_rng(seed).integers(0, 256, (size, size + 7), dtype=np.uint8)
    low, narrow = int(size * share), int((size + 7) * share)
    expected = np.asarray(Image.fromarray(plane).resize((narrow, low), Image.BOX))
    found = shrink_integer(torch.from_numpy(plane).expand(2, 3, -1, -1), low, narrow)
    assert all(np.array_equal(one, expected) for one in found.flatten(0, 1).numpy())


@pytest.mark.parametrize(
    ("scale", "severity"), [("imagenet", s) for s in range(1, 6)] + [("cifar", 3), ("tiny", 4)]
)
def test_defocus_blur_is_a_correlation_with_the_disk(scale, severity):
    array = picture(70, 61, 2)
    kernel = disk_kernel(*map(float, CONSTANTS["defocus_blur"][scale][severity - 1]))
    planes = [ndimage.correlate(array[..., c] / 255, kernel, mode="mirror") for c in range(3)]
    expected = (np.stack(planes, 2).clip(0, 1) * 255).astype(np.uint8)
    assert_near(ours(array, "defocus_blur", severity, scale), expected, 0.005)


def test_the_disk_kernel_keeps_the_sums_of_the_benchmark():
    sums = [disk_kernel(*map(float, row)).sum() for row in CONSTANTS["defocus_blur"]["imagenet"]]
    assert sums[:3] == pytest.approx([1, 1, 1], abs=1e-7)
    assert sums[3:] == pytest.approx([1.01298, 1.01079], abs=1e-5)
    assert all(total < 1 for total in sums[:3])  # so whole levels fall by one


@pytest.mark.parametrize(
    ("border", "mode"), [("nearest", "nearest"), ("reflect", "reflect"), ("mirror", "mirror")]
)
@pytest.mark.parametrize("size", [(40, 51), (96, 100)])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 7.0, 20.0])
def test_the_gaussian_filter_is_that_of_scipy(border, mode, size, sigma):
    x = np.random.default_rng(0).random((2, 3, *size)).astype(np.float32)
    expected = ndimage.gaussian_filter(
        x.astype(np.float64), (0, 0, sigma, sigma / 2), mode=mode, truncate=3.0
    )
    found = gaussian_filter(torch.from_numpy(x), (sigma, sigma / 2), border, truncate=3.0)
    assert np.abs(found.numpy() - expected).max() < 2e-6


def test_extend_follows_the_three_border_rules():
    x = torch.arange(4)[None]
    assert extend(x, 2, 3, "nearest", 1).tolist() == [[0, 0, 0, 1, 2, 3, 3, 3, 3]]
    assert extend(x, 2, 3, "reflect", 1).tolist() == [[1, 0, 0, 1, 2, 3, 3, 2, 1]]
    assert extend(x, 2, 3, "mirror", 1).tolist() == [[2, 1, 0, 1, 2, 3, 2, 1, 0]]


@pytest.mark.parametrize("severity", range(1, 6))
def test_gaussian_blur_is_that_of_scipy(severity):
    array = picture(64, 72, 1)
    sigma = CONSTANTS["gaussian_blur"]["imagenet"][severity - 1][0]
    expected = ndimage.gaussian_filter(array / 255, (sigma, sigma, 0), mode="nearest")
    assert_near(ours(array, "gaussian_blur", severity), truncated(expected))


@pytest.mark.parametrize(("scale", "size"), [("imagenet", (64, 96)), ("cifar", (32, 32))])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_zoom_blur_is_a_mean_of_zooms(scale, size, severity):
    array = picture(*size, 1) / 255
    count, step = CONSTANTS["zoom_blur"][scale][severity - 1]
    total = array.copy()
    for factor in zoom_factors(int(count), step):
        part = [math.ceil(side / factor) for side in size]
        top, left = ((side - cut) // 2 for side, cut in zip(size, part, strict=True))
        big = ndimage.zoom(array[top : top + part[0], left : left + part[1]], (factor, factor, 1), order=1)
        skip = [
            (have - side) // 2 if scale == "cifar" else 0 for have, side in zip(big.shape, size, strict=False)
        ]
        total += big[skip[0] : skip[0] + size[0], skip[1] : skip[1] + size[1]]
    found = ours((array * 255).round().astype(np.uint8), "zoom_blur", severity, scale)
    assert_near(found, truncated(total / (count + 1)), 0.05)


def test_zoom_factors_have_the_end_of_the_float_range():
    assert (
        len(np.arange(1, 1.06, 0.01)) == len(zoom_factors(7, 0.01)) - 1
        or zoom_factors(7, 0.01)[-1] > 1.06 - 1e-9
    )
    assert zoom_factors(26, 0.01)[-1] == 1.2500000000000002
    assert zoom_factors(11, 0.03) == np.arange(1, 1.31, 0.03).tolist()


def hsv_changed(array, change):
    pixels = []
    for red, green, blue in array.reshape(-1, 3) / 255:
        pixels.append(colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(red, green, blue))))
    return truncated(np.array(pixels).reshape(array.shape))


@pytest.mark.parametrize("severity", [1, 5])
def test_brightness_raises_the_hsv_value(severity):
    array = picture(32, 40, 1)
    array[:4, :4] = 0
    array[4:8, :4] = 130
    amount = CONSTANTS["brightness"]["imagenet"][severity - 1][0]
    expected = hsv_changed(array, lambda h, s, v: (h, s, min(v + amount, 1)))
    assert_near(ours(array, "brightness", severity), expected, 0.06)


@pytest.mark.parametrize("severity", range(1, 6))
def test_saturate_maps_the_hsv_saturation(severity):
    array = picture(32, 40, 1)
    array[:4, :4] = 0
    array[4:8, :4] = 130  # grey has hue 0, so an offset tints it red
    gain, offset = CONSTANTS["saturate"]["imagenet"][severity - 1]
    expected = hsv_changed(array, lambda h, s, v: (h, min(gain * s + offset, 1), v))
    assert_near(ours(array, "saturate", severity), expected, 0.2)


@pytest.mark.parametrize("severity", range(1, 6))
def test_contrast_shrinks_towards_the_channel_means(severity):
    array = picture(45, 40, 2)
    unit, factor = array / 255, CONSTANTS["contrast"]["imagenet"][severity - 1][0]
    mean = unit.mean((0, 1))
    # Whole levels may fall by one in float64, and some means make many values whole.
    assert_near(ours(array, "contrast", severity), truncated((unit - mean) * factor + mean), 0.1)


@settings(max_examples=20, deadline=None)
@given(level=st.integers(0, 255))
def test_flat_pictures_stay_flat(level):
    array = np.full((40, 36, 3), level, np.uint8)
    for name in ("gaussian_blur", "zoom_blur", "contrast"):
        assert np.abs(ours(array, name, 5).astype(int) - level).max() <= 1
