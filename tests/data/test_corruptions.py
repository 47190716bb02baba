# SPDX-License-Identifier: Apache-2.0
"""What `corrupt` promises for every corruption: shapes, reproducibility, independence of the batch, clear errors."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tta_bench.data.corruptions import CORRUPTIONS, EXTRA, GROUPS, SCALES, Options, corrupt
from tta_bench.data.corruptions.constants import CONSTANTS
from tta_bench.data.corruptions.registry import REGISTRY
from tta_bench.errors import BadInputError, UnknownNameError

ALL = CORRUPTIONS + EXTRA
RANDOM = [name for name in ALL if REGISTRY[name].draw]


def pictures(count, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    fine = torch.randn(count, 3, height, width, generator=generator) * 12
    return (smooth + fine).clamp(0, 255).to(torch.uint8)


def test_the_names_are_the_fifteen_in_the_common_order_and_four_more():
    assert len(CORRUPTIONS) == 15
    assert CORRUPTIONS[0] == "gaussian_noise"
    assert CORRUPTIONS[9:12] == ("fog", "brightness", "contrast")
    assert CORRUPTIONS[-1] == "jpeg_compression"
    assert EXTRA == ("speckle_noise", "gaussian_blur", "spatter", "saturate")
    assert (
        set(REGISTRY) == set(CONSTANTS) == set(ALL) == {name for names in GROUPS.values() for name in names}
    )
    assert all(len(table) == 5 for tables in CONSTANTS.values() for table in tables.values())
    assert all(set(tables) == set(SCALES) for tables in CONSTANTS.values())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ALL)
def test_every_severity_changes_the_picture_and_leaves_the_input_alone(name, scale):
    images = pictures(2, 48, 40)
    before = images.clone()
    for severity in range(1, 6):
        out = corrupt(images, name, severity, 0, scale=scale)
        assert out.shape == images.shape
        assert out.dtype == torch.uint8
        assert out.is_contiguous()
        assert not torch.equal(out, images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=6, deadline=None)
@given(
    height=st.integers(32, 90), width=st.integers(32, 90), severity=st.integers(1, 5), seed=st.integers(0, 9)
)
def test_any_size_from_32_up_is_accepted(name, height, width, severity, seed):
    images = pictures(1, height, width, seed)
    out = corrupt(images, name, severity, seed, scale="imagenet")
    assert out.shape == images.shape
    assert torch.equal(out, corrupt(images, name, severity, seed, scale="imagenet"))


@pytest.mark.parametrize(("size", "scale"), [((32, 32), "cifar"), ((64, 64), "tiny"), ((70, 83), "imagenet")])
@pytest.mark.parametrize("name", ALL)
def test_a_picture_does_not_depend_on_its_batch(name, size, scale):
    images, ids = pictures(7, *size), [40, "a/b.png", 3, -1, "3", 2**40, 0]
    whole = corrupt(images, name, 4, 5, ids=ids, scale=scale)
    order = [6, 2, 0, 5, 1, 4, 3]
    shuffled = corrupt(images[order], name, 4, 5, ids=[ids[i] for i in order], scale=scale)
    assert torch.equal(shuffled, whole[order])
    for split in (1, 3):
        parts = [
            corrupt(images[i : i + split], name, 4, 5, ids=ids[i : i + split], scale=scale)
            for i in range(0, 7, split)
        ]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(
    "name", ["gaussian_blur", "elastic_transform", "defocus_blur", "spatter", "glass_blur"]
)
def test_large_pictures_do_not_depend_on_their_batch_either(name):
    images = pictures(3, 224, 224)
    whole = corrupt(images, name, 3, 0)
    assert torch.equal(corrupt(images[1:2], name, 3, 0, ids=[1]), whole[1:2])


def test_a_batch_of_many_small_pictures_equals_its_pictures():
    images = pictures(200, 32, 32)  # more than fit one part
    for name in ("gaussian_noise", "motion_blur", "fog"):
        whole = corrupt(images, name, 2, 0)
        assert torch.equal(corrupt(images[150:], name, 2, 0, ids=range(150, 200)), whole[150:])


@pytest.mark.parametrize("name", RANDOM)
def test_seed_id_and_severity_each_change_the_draw(name):
    image = pictures(1, 40, 40)
    base = corrupt(image, name, 3, 0, ids=[0])
    assert not torch.equal(corrupt(image, name, 3, 1, ids=[0]), base)
    assert not torch.equal(corrupt(image, name, 3, 0, ids=[1]), base)
    assert not torch.equal(corrupt(image, name, 3, 0, ids=["0"]), base)
    both = corrupt(image.expand(2, -1, -1, -1), name, 3, 0)
    assert not torch.equal(both[0], both[1])


def test_the_global_generators_are_left_alone():
    torch_before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    for name in RANDOM:
        corrupt(pictures(1, 32, 32), name, 1, 0)
        torch.rand(1, generator=torch.Generator())
    assert torch.equal(torch.random.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


ELSEWHERE = """
import hashlib, sys, torch
from tta_bench.data.corruptions import corrupt
images = torch.arange(2 * 3 * 50 * 44).view(2, 3, 50, 44).mul(7).remainder(251).to(torch.uint8)
for name in sys.argv[1:]:
    print(hashlib.sha256(corrupt(images, name, 3, 7, ids=["x", 4]).numpy().tobytes()).hexdigest())
"""


def test_another_process_gives_the_same():
    names = [
        "gaussian_noise",
        "shot_noise",
        "frost",
        "fog",
        "snow",
        "elastic_transform",
        "spatter",
        "glass_blur",
    ]
    command = [sys.executable, "-c", ELSEWHERE, *names]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.split()
    images = torch.arange(2 * 3 * 50 * 44).view(2, 3, 50, 44).mul(7).remainder(251).to(torch.uint8)
    here = [corrupt(images, name, 3, 7, ids=["x", 4]).numpy().tobytes() for name in names]
    assert found == [hashlib.sha256(content).hexdigest() for content in here]


@pytest.mark.parametrize("name", ALL)
def test_the_number_of_threads_does_not_matter(name):
    images, threads = pictures(2, 96, 80), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = corrupt(images, name, 5, 0)
        torch.set_num_threads(2)
        assert torch.equal(corrupt(images, name, 5, 0), one)
    finally:
        torch.set_num_threads(threads)


def test_the_scale_follows_the_size():
    small, large = pictures(1, 32, 32), pictures(1, 33, 32)
    assert torch.equal(corrupt(small, "contrast", 5, 0), corrupt(small, "contrast", 5, 0, scale="cifar"))
    assert torch.equal(corrupt(large, "contrast", 5, 0), corrupt(large, "contrast", 5, 0, scale="imagenet"))
    assert not torch.equal(
        corrupt(small, "contrast", 5, 0), corrupt(small, "contrast", 5, 0, scale="imagenet")
    )


def test_ids_may_be_a_tensor_and_default_to_the_place():
    images = pictures(3, 32, 32)
    expected = corrupt(images, "gaussian_noise", 1, 0)
    assert torch.equal(corrupt(images, "gaussian_noise", 1, 0, ids=torch.arange(3)), expected)
    assert torch.equal(corrupt(images, "gaussian_noise", 1, 0, ids=np.arange(3)), expected)


def test_an_empty_batch_stays_empty():
    assert corrupt(pictures(1, 32, 32)[:0], "fog", 1, 0).shape == (0, 3, 32, 32)


def test_a_slice_of_a_larger_tensor_is_accepted():
    images = pictures(2, 64, 64)
    view = images[:, :, 5:45, 7:50]
    for name in ALL:
        assert torch.equal(corrupt(view, name, 2, 0), corrupt(view.contiguous(), name, 2, 0))


def test_an_unknown_corruption_is_answered_with_near_names():
    with pytest.raises(UnknownNameError, match="gaussian_noise"):
        corrupt(pictures(1, 32, 32), "gausian_noise", 1, 0)


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5, True, "3"])
def test_a_severity_out_of_range_is_refused(severity):
    with pytest.raises(BadInputError, match="from 1 to 5"):
        corrupt(pictures(1, 32, 32), "fog", severity, 0)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(1, 3, 31, 40, dtype=torch.uint8), "at least 32"),
        (torch.zeros(1, 3, 40, 31, dtype=torch.uint8), "at least 32"),
        (torch.zeros(1, 3, 40, 40), "uint8"),
        (torch.zeros(1, 1, 40, 40, dtype=torch.uint8), "3, H, W"),
        (torch.zeros(3, 40, 40, dtype=torch.uint8), "H, W"),
    ],
)
def test_wrong_images_are_refused(images, words):
    with pytest.raises(BadInputError, match=words):
        corrupt(images, "fog", 1, 0)


def test_wrong_ids_scales_and_options_are_refused():
    images = pictures(2, 32, 32)
    with pytest.raises(BadInputError, match="ids"):
        corrupt(images, "fog", 1, 0, ids=[1])
    with pytest.raises(BadInputError, match="integer or a string"):
        corrupt(images, "fog", 1, 0, ids=[1.5, 2])
    with pytest.raises(UnknownNameError, match="cifar"):
        corrupt(images, "fog", 1, 0, scale="cifar10")
    with pytest.raises(UnknownNameError, match="original"):
        corrupt(images, "elastic_transform", 1, 0, options=Options(elastic="orignal"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ALL)
def test_a_cuda_device_agrees_and_does_not_depend_on_the_batch(name):
    images = pictures(5, 96, 80)
    expected = corrupt(images, name, 4, 0)
    found = corrupt(images.cuda(), name, 4, 0)
    difference = (found.cpu().int() - expected.int()).abs()
    assert difference.max() <= 1
    assert difference.float().mean() <= 0.02
    assert torch.equal(corrupt(images[3:].cuda(), name, 4, 0, ids=[3, 4]), found[3:])
