# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from tta_bench.data.images.preprocess import Preprocess


def picture(width, height, mode="RGB"):
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def to_uint8(image):
    return (transforms.ToTensor()(image) * 255).round().to(torch.uint8)


@given(st.integers(9, 70), st.integers(9, 70), st.sampled_from(["bilinear", "bicubic", "nearest"]))
def test_resize_and_crop_equal_torchvisions_first_api(width, height, filter_name):
    mode = transforms.InterpolationMode(filter_name)
    reference = transforms.Compose([transforms.Resize(36, mode), transforms.CenterCrop(32)])
    image = picture(width, height)
    assert torch.equal(Preprocess((32, 32), 36, filter_name)(image), to_uint8(reference(image)))


@pytest.mark.parametrize(("resize", "between"), [(None, (24, 32)), ((30, 40), (30, 40))])
def test_squashing_ignores_the_aspect(resize, between):
    reference = transforms.Compose([transforms.Resize(between), transforms.CenterCrop((24, 32))])
    for size in ((50, 20), (32, 24), (20, 50)):
        found = Preprocess((24, 32), resize)(picture(*size))
        assert torch.equal(found, to_uint8(reference(picture(*size))))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_colour_modes_become_rgb(mode):
    image = picture(40, 40, mode)
    assert torch.equal(Preprocess((32, 32), 32)(image), Preprocess((32, 32), 32)(image.convert("RGB")))


def test_arrays_of_the_inputs_own_size_pass_unchanged_and_others_are_resized():
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(Preprocess((32, 32), 36).batch(images), images)
    larger = Preprocess((64, 64), 72).batch(images)
    expected = transforms.Resize(64)(Image.fromarray(images[0].permute(1, 2, 0).numpy()))
    assert larger.shape == (3, 3, 64, 64)
    assert torch.equal(larger[0], to_uint8(expected))


def test_the_description_tells_preprocessing_apart():
    made = [
        Preprocess((32, 32)),
        Preprocess((32, 32), 36),
        Preprocess((32, 32), (36, 36)),
        Preprocess((32, 48)),
    ]
    assert len({preprocess.describe() for preprocess in made}) == 4


@pytest.mark.parametrize("size", [(50, 40), (20, 60), (32, 32), (10, 12)])
def test_a_crop_alone_equals_torchvisions(size):
    only = Preprocess((32, 32), 0)
    assert torch.equal(only(picture(*size)), to_uint8(transforms.CenterCrop(32)(picture(*size))))
    assert only.describe() == "centre crop 32x32"
