# SPDX-License-Identifier: Apache-2.0
"""Views against torchvision's crops and Pillow's distortions, and what they may depend on."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as TF

from tta_bench import augment
from tta_bench.data.images import views
from tta_bench.data.images.distortions import FILLING, OPERATIONS, distort
from tta_bench.data.images.mixing import mixing
from tta_bench.errors import UnknownNameError

KINDS = ("crop", "augmix")


def smooth(count, height, width, seed=0):
    """Images of whole numbers from 0 to 255 without saturated pixels."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, 3, height, width, generator=generator) * 255
    return torch.nn.functional.avg_pool2d(noise, 5, 1, 2).round()


def numbers(kind, count, ids):
    return torch.stack([views.view_numbers(kind, count, torch.Generator().manual_seed(i)) for i in ids])


@pytest.mark.parametrize("size", [(32, 32), (60, 44)])
def test_crops_are_those_of_torchvision(size):
    images = smooth(6, *size) / 255
    drawn = views.view_numbers("crop", 7, torch.Generator().manual_seed(1))
    boxes = torch.stack(augment.crop_boxes(drawn, *size, views.AREA, augment.RATIO), dim=1).long().tolist()
    found = views.resized_crops(images, drawn)
    for image, box, number, crop in zip(images, boxes, drawn, found, strict=True):
        expected = TF.resized_crop(image, *box, list(size), antialias=True)
        expected = expected.flip(-1) if number[-1] < 0.5 else expected
        assert ((crop - expected).abs().max() * 255) < 0.51, "views are rounded to 8 bits"


def test_the_areas_and_ratios_of_crops_are_the_published_ones():
    drawn = views.view_numbers("crop", 20_001, torch.Generator().manual_seed(0))
    top, left, rows, columns = augment.crop_boxes(drawn, 224, 224, views.AREA, augment.RATIO)
    assert ((top >= 0) & (left >= 0) & (top + rows <= 224) & (left + columns <= 224)).all()
    area, ratio = rows * columns / 224**2, columns / rows
    assert 0.075 < area.min() < 0.09
    assert area.max() > 0.97
    assert 0.73 < ratio.min() < 0.77
    assert 1.30 < ratio.max() < 1.36
    assert abs((drawn[:, -1] < 0.5).float().mean() - 0.5) < 0.02


def test_where_no_crop_fits_it_is_the_middle():
    drawn = torch.full((1, views.CROP_NUMBERS), 0.999)
    top, left, rows, columns = (
        float(v) for v in augment.crop_boxes(drawn, 40, 100, views.AREA, augment.RATIO)
    )
    assert (rows, columns) == (40, 53)
    assert (top, left) == (0, 23)


def test_shifts_move_over_black_and_flip():
    image = smooth(1, 16, 16) / 255
    still = torch.full((1, views.CROP_NUMBERS), 0.5)
    assert torch.equal(views.shifts(image, still), image)
    moved = still.clone()
    moved[0, -3:-1] = torch.tensor([0.0, 0.99])
    found = views.shifts(image, moved)
    assert torch.equal(found[..., 2:, :-2], image[..., :-2, 2:])
    assert not found[..., :2, :].any()
    still[0, -1] = 0.1
    assert torch.equal(views.shifts(image, still), image.flip(-1))


def pillow(name, image, strength, sign):
    height, width = image.height, image.width
    grey = {"resample": Image.Resampling.BILINEAR, "fillcolor": (int(FILLING),) * 3}

    def affine(*matrix):
        return image.transform((width, height), Image.Transform.AFFINE, matrix, **grey)

    if name == "rotate":
        return image.rotate(sign * int(strength * 3), **grey)
    made = {
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "posterize": lambda: ImageOps.posterize(image, 4),
        "solarize": lambda: ImageOps.solarize(image, 256 - int(strength * 25.6)),
        "shear_x": lambda: affine(1, sign * strength * 0.03, 0, 0, 1, 0),
        "shear_y": lambda: affine(1, 0, 0, sign * strength * 0.03, 1, 0),
        "translate_x": lambda: affine(1, 0, sign * int(strength * width / 30), 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, sign * int(strength * height / 30)),
    }
    return made[name]()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_distortions_are_those_of_pillow(name, mirrored):
    images, level = smooth(4, 40, 64), torch.tensor([0.05, 0.4, 0.7, 0.95])
    chosen = torch.full((4,), OPERATIONS.index(name))
    found = distort(images, chosen, level, torch.full((4,), mirrored))
    for image, number, result in zip(images, level, found, strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).byte().numpy())
        made = pillow(name, picture, 0.1 + 0.9 * float(number), -1 if mirrored else 1)
        difference = (result - torch.from_numpy(np.array(made)).permute(2, 0, 1)).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 0.01


def test_each_image_has_its_own_distortion():
    images = smooth(5, 32, 32)
    chosen = torch.tensor([-1, 0, 4, 8, 3])
    level, mirrored = torch.linspace(0.1, 0.9, 5), torch.tensor([True, False, True, False, True])
    together = distort(images, chosen, level, mirrored)
    assert torch.equal(together[0], images[0])
    for i in range(5):
        assert torch.equal(
            distort(*(x[i : i + 1] for x in (images, chosen, level, mirrored)))[0], together[i]
        )


@pytest.mark.parametrize("size", [32, 80])
@pytest.mark.parametrize("kind", KINDS)
def test_views_of_an_image_do_not_depend_on_its_batch(monkeypatch, kind, size):
    images = smooth(4, size, size) / 255
    drawn = numbers(kind, 5, range(4))
    together = views.make_views(images, drawn, kind)
    assert together.shape == (4, 5, 3, size, size)
    assert torch.equal(together[:, 0], images)
    assert together.min() >= 0
    assert together.max() <= 1 + 1e-6
    alone = torch.cat([views.make_views(images[i : i + 1], drawn[i : i + 1], kind) for i in range(4)])
    assert torch.equal(alone, together)
    monkeypatch.setattr(views, "AT_ONCE", 1)
    assert torch.equal(views.make_views(images, drawn, kind), together)


@pytest.mark.parametrize("kind", KINDS)
def test_views_differ_from_each_other_and_by_seed(kind):
    image = smooth(1, 32, 32) / 255
    first, second = (views.make_views(image, numbers(kind, 4, [seed]), kind) for seed in (0, 1))
    flat = torch.cat([first[0], second[0, 1:]]).flatten(1)
    distance = torch.cdist(flat, flat) + 10 * torch.eye(len(flat))
    assert distance.min() > 0.05


def test_the_image_alone_is_a_view():
    image = smooth(2, 32, 32) / 255
    assert torch.equal(views.make_views(image, numbers("augmix", 1, [0, 1]), "augmix")[:, 0], image)


def test_the_mix_is_a_mean_of_base_and_chains():
    grey = torch.full((1, 3, 80, 80), 128 / 255)
    drawn = views.view_numbers("augmix", 40, torch.Generator().manual_seed(0))
    found = views.mixed(grey.expand(39, -1, -1, -1), drawn)
    # Equalising and stretching leave an even image as it is; posterising and solarising it at most halve it.
    assert ((found > 0.45) & (found < 0.51)).all()


def test_an_unknown_kind_is_refused():
    with pytest.raises(UnknownNameError, match="augmix"):
        views.view_numbers("augmax", 3, torch.Generator())


@pytest.mark.parametrize(("kind", "size"), [("crop", 32), ("crop", 80), ("augmix", 32), ("augmix", 80)])
def test_views_are_those_of_the_published_recipe(kind, size):
    images = smooth(2, size, size) / 255
    drawn = numbers(kind, 9, range(2))
    ours, theirs = (
        views.make_views(images, drawn, kind, recipe=recipe) for recipe in ("device", "reference")
    )
    away = (ours - theirs).abs() * 255
    if kind == "crop":
        assert away.max() < 1.01, "a crop differs by rounding alone"
    assert away.mean() < 0.3
    assert (away > 1.5).float().mean() < 0.01, "an equalisation spreads a rounding over few pixels"
    assert torch.equal(theirs[:, 0], images)


def test_large_images_are_viewed_alike_one_by_one_and_in_blocks():
    images = smooth(2, 72, 100) / 255
    drawn = numbers("crop", 9, range(2))
    blocks = views._at_once(images, drawn, views.resized_crops)
    assert ((views.make_views(images, drawn, "crop") - blocks).abs() * 255).max() < 1.01
    double = views.make_views(images.double(), drawn, "crop")
    assert double.dtype == torch.float64
    torch.testing.assert_close(double, views.make_views(images, drawn, "crop").double(), atol=1e-6, rtol=0)


def test_the_mix_has_the_published_distribution():
    plan = mixing(torch.rand(20_000, 34, generator=torch.Generator().manual_seed(0)))
    for found, mean, variance in ((plan.share, 1 / 2, 1 / 12), (plan.weight, 1 / 3, 1 / 18)):
        assert abs(found.mean() - mean) < 0.005
        assert abs(found.var() - variance) < 0.003
    torch.testing.assert_close(plan.weight.sum(1), torch.ones(len(plan.weight)))
    for values, count in ((plan.length, 3), (plan.operation, len(OPERATIONS))):
        shares = torch.bincount(values.flatten(), minlength=count) / values.numel()
        assert len(shares) == count
        assert (shares - 1 / count).abs().max() < 0.005
    assert abs(plan.mirrored.float().mean() - 0.5) < 0.005


def test_a_mix_of_one_undistorted_chain_is_the_crop():
    images = smooth(1, 80, 80) / 255
    drawn = numbers("augmix", 4, [0])
    drawn[..., views.CROP_NUMBERS] = 1.0  # the share of the crop itself
    mixed = views.make_views(images, drawn, "augmix")
    crops = views.make_views(images, drawn[..., : views.CROP_NUMBERS], "crop")
    torch.testing.assert_close(mixed, crops, atol=1e-6, rtol=0)
