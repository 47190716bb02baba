# SPDX-License-Identifier: Apache-2.0
"""PocketScenes: every image is a pure function of split, index and seed, and looks as its split promises."""

import colorsys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.pocket import scenes as pocket
from tta_bench.pocket.scenes import fields, painter, shapes, verify
from tta_bench.pocket.scenes.draws import draw, real
from tta_bench.pocket.scenes.painter import render
from tta_bench.pocket.scenes.spec import BACKGROUND_TONE, COLOURS, MIN_CONTRAST, contrasting

SMALLEST = min(pocket.SPLIT_SIZES.values())


@settings(max_examples=25, deadline=None)
@given(
    split=st.sampled_from(pocket.SPLITS),
    indices=st.lists(st.integers(0, SMALLEST - 1), min_size=1, max_size=9),
    seed=st.integers(0, 2**40),
)
def test_an_image_is_the_same_bits_in_any_batch(split, indices, seed):
    together, labels = render(split, indices, seed)
    for image, label, index in zip(together, labels, indices, strict=True):
        alone, own = render(split, [index], seed)
        assert torch.equal(alone[0], image)
        assert own.item() == label.item() == pocket.labels_of(split, [index], seed).item()


@pytest.mark.parametrize("split", ["v2", "sketch", "rendition"])
def test_chunks_and_threads_do_not_change_an_image(split):
    indices = torch.arange(150)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        single, _ = render(split, indices)
        torch.set_num_threads(2)
        double, _ = render(split, indices.flip(0))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(single, double.flip(0))


def test_rendering_leaves_the_global_generators_alone():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    render("test", range(4))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.portable
@pytest.mark.parametrize(
    "split", [pytest.param(s, marks=pytest.mark.slow if s == "train" else ()) for s in pocket.SPLITS]
)
def test_this_platform_renders_the_published_images(split):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pocket.check_hashes([split]) == ()


@pytest.mark.parametrize("split", ["test", "sketch", "rendition"])
def test_no_pixel_value_lies_so_near_a_half_that_a_library_could_tip_it(split, monkeypatch):
    measure, nearest = painter._levels, []

    def levels(image, draws, look):
        made = measure(image, draws, look)
        assert made.dtype == torch.float64
        between = made[(made > 0) & (made < 255)] + 0.5
        nearest.append((between - between.round()).abs().min().item())
        return made

    monkeypatch.setattr(painter, "_levels", levels)
    render(split, range(500))
    assert min(nearest) > 1e-10


def test_rendering_does_not_hang_on_the_default_precision():
    usual, _ = render("test", range(20))
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float16)
        assert torch.equal(render("test", range(20))[0], usual)
    finally:
        torch.set_default_dtype(before)


def test_a_platform_that_differs_is_told_why(monkeypatch):
    monkeypatch.setitem(verify.PUBLISHED_SHA256, "hard", "0" * 64)
    with pytest.warns(UserWarning, match=r"hard differ in bits .*torch 2"):
        assert pocket.check_hashes(("sketch", "hard")) == ("hard",)


@pytest.mark.parametrize("split", pocket.SPLITS)
@pytest.mark.parametrize("seed", [0, 7])
def test_classes_are_balanced_and_shuffled(split, seed):
    size = pocket.SPLIT_SIZES[split]
    labels = pocket.labels_of(split, range(size), seed)
    assert torch.equal(labels.bincount(), torch.full((16,), size // 16))
    in_order = torch.arange(size) % 16
    assert 0.02 < (labels == in_order).float().mean() < 0.11


def test_splits_and_seeds_give_different_images():
    seen = [render(split, range(8), seed)[0] for split in pocket.SPLITS for seed in (0, 1)]
    distinct = {image.numpy().tobytes() for batch in seen for image in batch}
    assert len(distinct) == len(seen) * 8


def test_no_test_image_is_in_the_training_set():
    train = {image.numpy().tobytes() for image in render("train", range(2000))[0]}
    test = {image.numpy().tobytes() for image in render("test", range(2000))[0]}
    assert len(train) == len(test) == 2000
    assert not train & test


def test_the_form_of_what_render_returns():
    images, labels = render("v2", (3, 3, 5))
    assert images.shape == (3, 3, 32, 32)
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert torch.equal(images[0], images[1])
    empty, none = render("v2", [])
    assert empty.shape == (0, 3, 32, 32)
    assert none.shape == (0,)
    assert pocket.facts("v2", []) == []


def test_bad_input_is_refused_with_a_sentence():
    with pytest.raises(UnknownNameError, match="did you mean 'sketch'"):
        render("sketches", [0])
    with pytest.raises(BadInputError, match=r"must lie in 0\.\.1999, got 2000"):
        render("test", [0, 2000])
    with pytest.raises(BadInputError, match="got -1"):
        pocket.facts("train", [-1])


def test_facts_name_what_is_drawn():
    indices = range(400)
    images, labels = render("test", indices)
    facts = pocket.facts("test", indices)
    assert [pocket.CLASS_NAMES[k] for k in labels] == [fact.name for fact in facts]
    border = torch.ones(32, 32, dtype=torch.bool)
    border[3:-3, 3:-3] = False
    tones = {name: [] for name in pocket.BACKGROUNDS}
    for image, fact in zip(images, facts, strict=True):
        tones[fact.background].append(image[:, border].float().median(1).values / 255)
    for name, rows in tones.items():
        nearest = torch.stack(rows).mean(0)
        distance = {other: (nearest - torch.tensor(tone)).norm() for other, tone in BACKGROUND_TONE.items()}
        assert min(distance, key=distance.get) == name


def test_plain_objects_have_the_colour_that_facts_tell():
    facts = pocket.facts("rendition", range(2000))
    chosen = [i for i, f in enumerate(facts) if f.name == "cross" and f.texture == "plain"]
    assert len(chosen) >= 10
    images, _ = render("rendition", chosen)
    for image, i in zip(images.float() / 255, chosen, strict=True):
        hue, saturation, _ = colorsys.rgb_to_hsv(*COLOURS[facts[i].colour])
        if saturation < 0.2:
            continue
        weight = torch.zeros(32, 32)
        for row in range(32):
            for column in range(32):
                h, s, _ = colorsys.rgb_to_hsv(*image[:, row, column].tolist())
                weight[row, column] = float(s > 0.3 and abs((h - hue + 0.5) % 1 - 0.5) < 0.09)
        assert weight.sum() > 12, facts[i]


def test_every_object_stands_out_from_its_background():
    for background, tone in BACKGROUND_TONE.items():
        found = contrasting(background)
        assert len(found) >= 4
        for index in found:
            colour = tuple(COLOURS.values())[index]
            assert np.linalg.norm(np.subtract(colour, tone)) >= MIN_CONTRAST


@settings(max_examples=100, deadline=None)
@given(st.floats(-50, 50))
def test_wave_is_the_sine(turns):
    expected = np.sin(2 * np.pi * turns)
    assert abs(fields.wave(real([turns])).item() - expected) < 2e-3
    c, s = fields.heading(real([turns]))
    assert (c * c + s * s).item() == pytest.approx(1, abs=1e-12)


def test_sensor_noise_is_nearly_standard_normal():
    noise = draw("test", range(64), 3).sensor.flatten().double()
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    assert (noise.abs() < 1).double().mean().item() == pytest.approx(0.68, abs=0.02)


def test_uniform_numbers_fill_the_unit_interval_and_images_share_none():
    grain = draw("test", range(64), 0)["grain"].reshape(64, -1)
    assert grain.min() >= 0
    assert grain.max() < 1
    histogram = torch.histc(grain, 16, 0, 1) / grain.numel()
    assert (histogram - 1 / 16).abs().max() < 0.004
    correlation = torch.corrcoef(grain) - torch.eye(64)
    assert correlation.abs().max() < 0.2


@pytest.mark.parametrize("name", pocket.CLASS_NAMES)
def test_objects_fill_their_frame_and_distances_do_not_overstate(name):
    axis = torch.linspace(-1.3, 1.3, 131)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    parts = shapes.OBJECTS[name](x[None], y[None])
    field = parts.body[0] if parts.detail is None else torch.minimum(parts.body, parts.detail)[0]
    inside = field < 0
    assert 0.12 < inside.float().mean() * 2.6**2 / 4 < 0.75
    assert not (inside & ((x.abs() > 1) | (y.abs() > 1))).any()
    width, height = x[inside].max() - x[inside].min(), y[inside].max() - y[inside].min()
    assert min(width, height) > 0.65
    assert max(width, height) > 1.5
    # A field that grew faster than distance would make edges hard and outlines thin.
    step = axis[1] - axis[0]
    assert (field.diff(dim=0).abs() <= step * 2.2).all()
    assert (field.diff(dim=1).abs() <= step * 2.2).all()


def test_shifted_splits_differ_as_their_names_say():
    def mean_of(split):
        images = render(split, range(500))[0].float() / 255
        colourful = (images.max(1).values - images.min(1).values).mean()
        return images.mean().item(), images.std().item(), colourful.item()

    test, v2, sketch = mean_of("test"), mean_of("v2"), mean_of("sketch")
    assert v2[0] < test[0] - 0.05
    assert v2[1] < test[1] - 0.03
    assert sketch[2] < 0.1 < test[2]
    rendition = render("rendition", range(50))[0]
    smooth = render("test", range(50))[0]
    edges = [(x.float().diff(dim=3).abs() < 6).float().mean().item() for x in (rendition, smooth)]
    assert edges[0] > edges[1] + 0.15
