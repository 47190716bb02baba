# SPDX-License-Identifier: Apache-2.0
"""Islands of agreement: layers found in every kind of network, controls, pictures that repeat, one layer at a time."""

import csv
import gc
import weakref
from itertools import pairwise

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from tta_bench.cli import app
from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.models.maps import chosen_layers, map_layers, visit_maps
from tta_bench.studies.islands import measure as module
from tta_bench.studies.islands import pictures
from tta_bench.studies.islands.basis import Moments, own_basis, to_rgb, tsne
from tta_bench.studies.islands.measure import curves, measure, sentence
from tta_bench.studies.islands.pictures import Look, layer_colours
from tta_bench.studies.islands.study import IslandsPlan, still_of, study_islands
from tta_bench.studies.islands.subjects import controls, network_layers, patch_side, shuffled_patches


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def call(*arguments):
    return CliRunner().invoke(app, ["islands", *map(str, arguments)])


def maps_of(net, x):
    net.eval()
    layers, found = map_layers(net), []
    visit_maps(net, layers, lambda: net(x), lambda index, maps: found.append(maps.clone()), "net")
    return layers, found


@pytest.mark.parametrize(
    ("name", "grid"),
    [("test_vit", 10), ("resnet10t", None), ("convnext_atto", None), ("test_efficientnet", None)],
)
def test_layers_of_timm_networks_have_a_grid(name, grid):
    net = timm.create_model(name)
    size = net.default_cfg["input_size"]
    layers, maps = maps_of(net, torch.rand(2, *size))
    assert len(layers) == len(maps) >= 2
    assert all(one.ndim == 4 and len(one) == 2 for one in maps)
    if grid:
        assert {tuple(one.shape[1:3]) for one in maps} == {(grid, grid)}
    else:
        assert all(small.shape[1] <= large.shape[1] for large, small in pairwise(maps))


def test_class_and_register_tokens_are_left_out():
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, reg_tokens=4, num_classes=0)
    kept = []
    net.blocks[0].register_forward_hook(lambda module, inputs, output: kept.append(output))
    layers, maps = maps_of(net, torch.rand(1, 3, 32, 32))
    assert [layer.prefix for layer in layers] == [5, 5]
    assert torch.equal(maps[0].flatten(1, 2), kept[0][:, 5:])


def test_a_still_video_gives_the_maps_of_its_first_frame():
    from torchvision.models.video import MViT
    from torchvision.models.video.mvit import MSBlockConfig

    blocks = [
        MSBlockConfig(1, 8, 8, [], [], [1, 2, 2], [1, 1, 1]),
        MSBlockConfig(2, 8, 8, [], [], [1, 1, 1], [1, 1, 1]),
    ]
    for block in blocks:
        block.kernel_q = block.kernel_kv = [3, 3, 3]
        block.stride_q = [1, 1, 1]
        block.stride_kv = [1, 2, 2]
    net = MViT((16, 16), 4, blocks, residual_pool=True, residual_with_cls_embed=False, rel_pos_embed=True,
               proj_after_attn=True, num_classes=3)  # fmt: skip
    layers, maps = maps_of(net, torch.rand(1, 3, 4, 16, 16))
    assert len(layers) == 2
    assert [tuple(one.shape) for one in maps] == [(1, 4, 4, 8), (1, 4, 4, 8)]


def test_a_network_without_a_grid_and_a_layer_that_is_not_there_are_refused():
    with pytest.raises(IncompatibleError, match="grid of locations"):
        chosen_layers(map_layers(nn.Sequential(nn.Flatten(), nn.Linear(3, 2))), None, "mine")
    layers = map_layers(timm.create_model("test_vit"))
    assert chosen_layers(layers, [-1, 0], "vit") == (0, len(layers) - 1)
    with pytest.raises(BadInputError, match=f"has layers 0 to {len(layers) - 1}, got 77"):
        chosen_layers(layers, [77], "vit")


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_shuffled_patches_are_the_same_patches(seed):
    x = torch.arange(2 * 3 * 24 * 32, dtype=torch.float64).reshape(2, 3, 24, 32)
    side = patch_side(24, 32)
    found = shuffled_patches(x, torch.Generator().manual_seed(seed))

    def patches(images):
        rows = [
            images[..., i : i + side, j : j + side] for i in range(0, 24, side) for j in range(0, 32, side)
        ]
        return {tuple(one.flatten().tolist()) for one in rows}

    assert side == 4
    assert patches(found) == patches(x)


def test_components_are_those_of_a_singular_value_decomposition():
    field = np.random.default_rng(0).normal(size=(6, 5, 9)) * np.arange(1, 10)
    flat = field.reshape(-1, 9)
    centred = flat - flat.mean(0)
    _, values, rows = np.linalg.svd(centred, full_matrices=False)
    found = own_basis(field).project(field).reshape(-1, 3)
    expected = centred @ rows[:3].T
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-8, atol=1e-8 * values[0])
    moments = Moments()
    moments.add(field[:2])
    moments.add(field[2:])
    np.testing.assert_allclose(moments.basis().directions, own_basis(field).directions, atol=1e-8)


def test_colours_span_one_range_for_all_three_components():
    components = np.array([[[0.0, 1.0, 2.0], [4.0, 3.0, 2.0]]])
    assert to_rgb(components).tolist() == [[[0, 64, 128], [255, 191, 128]]]
    assert to_rgb(components, -4.0, 4.0).tolist() == [[[128, 159, 191], [255, 223, 191]]]
    assert not to_rgb(np.ones((2, 2, 3))).any()


def test_t_sne_needs_locations_and_repeats(photo):
    pytest.importorskip("sklearn")
    with pytest.raises(BadInputError, match="4 locations or more"):
        tsne(np.zeros((1, 3, 2)), perplexity=1, seed=0)
    field = np.random.default_rng(0).normal(size=(4, 4, 6))
    first, second = (tsne(field, perplexity=3, seed=5) for _ in range(2))
    assert first.shape == (4, 4, 3)
    assert np.array_equal(first, second)


def test_a_shared_basis_gives_the_same_feature_the_same_colour(photo):
    subject = network_layers("timm/test_vit", pretrained=False)
    still = still_of(photo)
    shared = layer_colours(subject, still, Look())
    assert len(shared) == len(subject.layers)
    twice = subject.__class__(**{**vars(subject), "parts": subject.parts[:1] * 2, "indices": (0, 0)})
    first, second = layer_colours(twice, still, Look())
    assert np.array_equal(first, second)


def test_one_layers_features_are_held_at_a_time(photo, monkeypatch):
    subject = network_layers("timm/test_vit", pretrained=False)
    given, alive = [], []
    original = module.agree

    def counted(field, threshold, generator):
        gc.collect()
        given.append(weakref.ref(field))
        alive.append(sum(one() is not None for one in given))
        return original(field, threshold, generator)

    monkeypatch.setattr(module, "agree", counted)
    measure([subject], [still_of(photo), still_of(photo)])
    assert alive == [1] * 2 * len(subject.layers)


def test_controls_stand_beside_the_model(photo):
    subject = network_layers("pocket-clip")
    names = [one.control for one in controls(subject, pretrained=True, seed=0)]
    assert names == ["random weights", "white noise", "shuffled patches"]
    rows = measure([subject, *controls(subject, pretrained=True, seed=0)], [still_of(photo)])
    noise = [row for row in rows if row.control == "white noise"]
    assert all(abs(row.agreement) < 0.3 for row in noise)
    assert {row.control for row in rows} == {"", *names}
    (found, *_) = curves(rows)
    assert sentence(found).startswith("pocket-clip: agreement ")


def test_rows_do_not_depend_on_the_images_beside(photo, tmp_path):
    other = tmp_path / "other.png"
    Image.open(photo).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other)
    subject = network_layers("pocket-clip")
    alone = measure([subject], [still_of(photo)])
    both = measure([subject], [still_of(other), still_of(photo)])
    assert both[len(alone) :] == alone


def test_a_dense_student_reads_held_out_locations_apart(photo):
    plan = IslandsPlan(
        images=(photo,), method="apm", dense=1, updates=(0, 400), values={"lr": "3e-3"}, with_controls=False
    )
    found = study_islands(plan)
    first, last = found.dense
    assert (first.updates, last.updates, last.layer) == (0, 400, 1)
    assert last.fitted > max(first.fitted, last.mean_fitted)
    assert last.fitted > last.held_out
    assert "at held-out ones" in found.sentences()[-1]


def test_the_command_writes_the_same_bytes_twice(photo, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        result = call(
            photo, "--model", "pocket-clip", "--method", "apm", "--updates", "0,3", "--output", folder
        )
        assert result.exit_code == 0, result.output
        assert "pocket-clip: agreement " in result.output
    names = sorted(path.name for path in folders[0].iterdir())
    assert {"islands.csv", "islands.svg", "photo-pocket-clip.png", "photo-pocket-clip.gif"} <= set(names)
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    with (folders[0] / "islands.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == {"pocket-clip", "apm of pocket-clip"}
    with Image.open(folders[0] / "photo-pocket-clip.gif") as gif:
        assert gif.n_frames == 4
        assert gif.info["loop"] == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "islands need images"),
        (["--layers", "9"], "has layers 0 to 3, got 9"),
        (["--layers", "x"], "--layers must be whole numbers"),
        (["--layers", "0"], "a GIF needs 2 layers or more"),
        (["--embedding", "umap"], "--embedding must be one of pca, tsne"),
        (["--embedding", "tsne", "--perplexity", "5000"], "t-SNE needs"),
        (["--dense", "1"], "need a method that fits them; name one"),
        (["--method", "source"], "need a method that fits one"),
        (["--threshold", "2"], "must be a cosine"),
    ],
)
def test_bad_input_is_one_sentence(photo, tmp_path, arguments, expected):
    images = [photo] if arguments else []
    result = call(*images, "--no-controls", "--output", tmp_path / "out", *arguments)
    assert isinstance(result.exception, BadInputError)
    assert expected in str(result.exception)


def test_python_gives_what_the_command_writes(photo, tmp_path):
    import tta_bench as tb

    assert call(photo, "--no-controls", "--no-plot", "--output", tmp_path / "command").exit_code == 0
    found = tb.islands(photo, models="pocket-clip", with_controls=False)
    found.save(tmp_path / "python", plot=False)
    files = [tmp_path / folder / "islands.csv" for folder in ("command", "python")]
    assert files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(BadInputError, match="unknown option of islands"):
        tb.islands(photo, thresold=0.5)


def test_a_gif_of_one_frame_is_refused_and_the_rest_is_written(photo, tmp_path):
    result = call(photo, "--layers", "0", "--no-controls", "--no-plot", "--output", tmp_path / "out")
    assert isinstance(result.exception, BadInputError)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"islands.csv", "photo-pocket-clip.png"}


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    result = call(tmp_path / "bad.png", "--output", tmp_path / "out")
    assert isinstance(result.exception, BadInputError)
    assert "bad.png cannot be decoded" in str(result.exception)
    assert "choose another image" in str(result.exception)
    missing = call(tmp_path / "none.png", "--output", tmp_path / "out")
    assert "none.png', which does not exist; check the path" in str(missing.exception)


def test_a_sheet_holds_every_tile_at_its_place():
    colours = [np.full((2, 3, 3), (20 * place, 100, 50), np.uint8) for place in range(pictures.COLUMNS + 2)]
    page = np.asarray(pictures.sheet([(str(place), one) for place, one in enumerate(colours)]))
    tile, gap, caption = pictures.TILE, pictures.GAP, pictures.CAPTION
    assert page.shape[0] == gap + 2 * (tile + caption + gap)
    for place, one in enumerate(colours):
        rows, columns = (page == one[0, 0]).all(-1).nonzero()
        row, column = divmod(place, pictures.COLUMNS)
        assert (rows.min(), rows.max() + 1 - rows.min()) == (gap + row * (tile + caption + gap), tile)
        assert (columns.min(), columns.max() + 1 - columns.min()) == (gap + column * (tile + gap), tile)
