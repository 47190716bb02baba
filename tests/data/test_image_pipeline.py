# SPDX-License-Identifier: Apache-2.0
"""From files to batches: workers, corruptions made while loading, bad images, subsets."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from tta_bench import __version__
from tta_bench.data.catalogue.families import folder
from tta_bench.data.corruptions import Options, corrupt, corrupt_folder
from tta_bench.data.dataset import OpenRequest, Shift
from tta_bench.data.images.files import Paths, UnreadableImageError, decode
from tta_bench.data.images.prefetch import prefetch
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.layouts.subsets import robustbench_list
from tta_bench.data.stream import Part, Stream, choose
from tta_bench.errors import BadInputError

from .trees import CATALOGUE

SIZE = Preprocess((40, 40), 44)


def noise_picture(path, seed, size=(64, 56)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def pictures(tmp_path):
    for index in range(12):
        noise_picture(tmp_path / "pictures" / ("cat", "dog", "emu")[index % 3] / f"{index}.png", index)
    return tmp_path / "pictures"


def open_folder(path, rest="", **options):
    dataset, _ = folder(f"{path}{rest}")
    shift = dataset.shifts(("fog",), (3,))[0] if rest else dataset.shifts()[0]
    return dataset.open(OpenRequest(shift, options=options))


def stream_batches(images, batch_size=5, start=0, seed=0):
    stream = Stream([Part(Shift("x"), images, choose(images, "full", seed))], batch_size, SIZE)
    return list(stream.from_row(start))


@pytest.mark.parametrize("rest", ["", ":fog:3"])
def test_bits_do_not_depend_on_workers_or_batches(pictures, rest):
    batches = {workers: stream_batches(open_folder(pictures, rest, workers=workers)) for workers in (0, 1, 2)}
    one = stream_batches(open_folder(pictures, rest, workers=0), batch_size=1)
    whole = torch.cat([batch.images for batch in batches[0]])
    for found in (*batches.values(), one):
        assert torch.equal(torch.cat([batch.images for batch in found]), whole)
        assert [name for batch in found for name in batch.ids] == [
            name for batch in batches[0] for name in batch.ids
        ]
    assert whole.shape == (12, 3, 40, 40)
    assert whole.dtype == torch.uint8


def test_workers_leave_the_global_random_state_alone(pictures):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    stream_batches(open_folder(pictures, workers=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stream_resumes_without_loading_what_came_before(pictures):
    images = open_folder(pictures, workers=0)
    every = stream_batches(images)
    loaded = []
    images.load, load = (
        lambda positions, preprocess: loaded.append(positions) or load(positions, preprocess),
        images.load,
    )
    rest = stream_batches(images, start=5)
    assert [batch.rows for batch in rest] == [range(5, 10), range(10, 12)]
    assert torch.equal(rest[0].images, every[1].images)
    assert sum(map(len, loaded)) == 7


def test_a_folder_is_corrupted_after_the_models_crop(pictures):
    clean, foggy = open_folder(pictures, workers=0), open_folder(pictures, ":fog:3", workers=0)
    assert clean.ids == foggy.ids
    expected = corrupt(clean.load([4, 1], SIZE), "fog", 3, 0, ids=[clean.ids[4], clean.ids[1]])
    assert torch.equal(foggy.load([4, 1], SIZE), expected)
    assert clean.data_hash != foggy.data_hash
    assert (clean.origin, foggy.origin) == (
        "as distributed",
        "generated from the user's images (frost=generated textures)",
    )


def val_tree(data, count=3):
    for index in range(count):
        wnid = ("n15075141", "n01440764", "n01443537")[index]
        noise_picture(
            data / "imagenet" / "val" / wnid / f"ILSVRC2012_val_{index:08d}.JPEG", index, (400, 300)
        )


def open_c(**options):
    shift = Shift("imagenet-c", "contrast", 4)
    return CATALOGUE["imagenet-c"].open(OpenRequest(shift, options={"workers": 0, **options}))


def test_imagenet_c_is_generated_after_resize_256_and_crop_224(data):
    val_tree(data)
    made, clean = open_c(), CATALOGUE["imagenet"].open(OpenRequest(Shift("imagenet"), options={"workers": 0}))
    assert made.ids == clean.ids
    crops = clean.load([0, 1, 2], Preprocess((224, 224), 256))
    expected = corrupt(crops, "contrast", 4, 0, ids=list(clean.ids))
    assert torch.equal(made.load([0, 1, 2], Preprocess((224, 224), 256)), expected)
    assert made.origin == "generated from imagenet (elastic=original, frost=generated textures)"
    smaller = made.load([0, 1, 2], Preprocess((112, 112), 128))
    assert smaller.shape == (3, 3, 112, 112)


def test_emulating_the_distributed_files_is_said_and_done(data):
    val_tree(data)
    emulated, plain = open_c(emulate_distributed=True), open_c()
    assert (
        emulated.origin
        == "generated from imagenet (elastic=original, emulate_distributed, frost=generated textures)"
    )
    assert emulated.data_hash != plain.data_hash
    crops = CATALOGUE["imagenet"].open(OpenRequest(Shift("imagenet"), options={"workers": 0}))
    expected = corrupt(
        crops.load([0], Preprocess((224, 224), 256)), "contrast", 4, 0, ids=[emulated.ids[0]],
        options=Options(emulate_distributed=True, elastic="original"),
    )  # fmt: skip
    assert torch.equal(emulated.load([0], Preprocess((224, 224), 256)), expected)


def test_distributed_files_win_and_are_taken_whole(data):
    val_tree(data)
    path = data / "ImageNet-C" / "contrast" / "4" / "n15075141" / "ILSVRC2012_val_00000000.JPEG"
    noise_picture(path, 7, (224, 224))
    images = open_c()
    assert images.origin == "as distributed"
    with Image.open(path) as picture:
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(images.load([0], Preprocess((224, 224), 256))[0], pixels)


def test_a_picture_that_is_no_crop_is_refused_where_crops_are_kept(data):
    noise_picture(data / "ImageNet-C" / "contrast" / "4" / "n15075141" / "a.JPEG", 7, (400, 300))
    with pytest.raises(
        BadInputError, match=r"must be square crops, got one of 400x300 in imagenet-c:contrast:4; "
    ):
        open_c().load([0], Preprocess((224, 224), 256))


def test_what_data_corrupt_wrote_says_where_it_comes_from(data):
    val_tree(data)
    clean = CATALOGUE["imagenet"].open(OpenRequest(Shift("imagenet"), options={"workers": 0}))
    corrupt_folder(data / "imagenet" / "val", data / "ImageNet-C", ["contrast"], [4], resize=256, crop=224)
    images = open_c()
    assert images.origin.startswith(f"written by tta-bench data corrupt {__version__} (seed 0, ")
    assert "resize 256, crop 224" in images.origin
    assert images.ids == clean.ids
    position = images.ids.index("n15075141/ILSVRC2012_val_00000000")
    crop = clean.load([position], Preprocess((224, 224), 256))
    expected = corrupt(crop, "contrast", 4, 0, ids=["n15075141/ILSVRC2012_val_00000000"])
    assert torch.equal(images.load([position], Preprocess((224, 224), 256)), expected)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_grey_levels_of_sixteen_bits_are_scaled(tmp_path, suffix):
    levels = np.array([[0, 127, 129, 256, 257, 32896, 65406, 65535]] * 8, dtype=np.uint16)
    path = tmp_path / f"a.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 8 8 65535\n" + levels.astype(">u2").tobytes())
    else:
        Image.fromarray(levels).save(path)
    found = np.array(decode(Paths(tmp_path, [path.name]), 0))
    assert found[0, :, 0].tolist() == [0, 0, 1, 1, 1, 128, 254, 255]
    assert (found == found[:, :, :1]).all()


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_grey_levels_without_a_white_are_unreadable(tmp_path, kind):
    (tmp_path / "cat").mkdir()
    Image.fromarray(np.full((40, 40), 200, kind)).save(tmp_path / "cat" / "a.tif")
    with pytest.raises(UnreadableImageError, match=r"a\.tif cannot be decoded .*have no known white"):
        decode(Paths(tmp_path, ["cat/a.tif"]), 0)
    with pytest.raises(BadInputError, match="have no known white"):
        corrupt_folder(tmp_path, tmp_path.parent / "out", ["contrast"], [1])


def spoil(pictures):
    cut, wrong = pictures / "cat" / "0.png", pictures / "emu" / "5.png"
    cut.write_bytes(cut.read_bytes()[:-400])
    wrong.write_bytes(b"<html>not found</html>")
    return {"cat/0", "emu/5"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_stops_the_run_and_is_named(pictures, workers):
    spoil(pictures)
    with pytest.raises(
        UnreadableImageError, match=r"(cat/0|emu/5)\.png cannot be decoded .*bad_image=.skip."
    ) as caught:
        stream_batches(open_folder(pictures, workers=workers))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_left_out_and_recorded(pictures, workers, monkeypatch):
    everything = stream_batches(open_folder(pictures, workers=0))
    bad = spoil(pictures)
    images = open_folder(pictures, workers=workers, bad_image="skip")
    batches = stream_batches(images)
    assert set(images.bad_images) == bad
    names = [name for batch in batches for name in batch.ids]
    assert names == [name for batch in everything for name in batch.ids if name not in bad]
    assert [len(batch.rows) for batch in batches] == [5, 5]
    again = open_folder(pictures, workers=0, bad_image="skip")
    monkeypatch.setattr("tta_bench.data.images.bad.decode", None)  # the kept answer needs no decoding
    assert choose(again, "full", 0).tolist() == choose(images, "full", 0).tolist()
    assert set(again.bad_images) == bad


def test_nothing_but_bad_images_is_an_error(pictures):
    for path in pictures.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(BadInputError, match="none of the 12 images"):
        choose(open_folder(pictures, workers=0, bad_image="skip"), "full", 0)


def test_the_hash_changes_with_a_file(pictures):
    before = open_folder(pictures, workers=0).data_hash
    noise_picture(pictures / "cat" / "0.png", 99)
    assert open_folder(pictures, workers=0).data_hash != before


def refuse(chunk):
    if 3 in chunk:
        raise BadInputError("no three")
    return torch.tensor(list(chunk))


@pytest.mark.parametrize("workers", [0, 2])
def test_made_ahead_keeps_order_and_errors(workers):
    chunks = [[0, 1], [2], [4, 5], [6]]
    assert [made.tolist() for made in prefetch(refuse, chunks, workers)] == chunks
    with pytest.raises(BadInputError, match=r"^no three$"):
        list(prefetch(refuse, [*chunks, [3]], workers))
    assert list(prefetch(refuse, [], workers)) == []


def five_thousand(data, count=5000):
    lines = [f"n01440764/ILSVRC2012_val_{number:08d}.JPEG" for number in range(count)]
    (data / "imagenet_test_image_ids.txt").write_text("\r\n".join(lines), encoding="utf-8")
    return [line.removesuffix(".JPEG") for line in lines]


def test_the_subset_of_robustbench_is_read_from_its_list(data):
    lines = five_thousand(data)
    base = data / "ImageNet-C" / "fog" / "1" / "n01440764"
    base.mkdir(parents=True)
    for line in [*lines, "n01440764/ILSVRC2012_val_00049999"]:
        (base / f"{line.partition('/')[2]}.png").touch()
    images = CATALOGUE["imagenet-c"].open(OpenRequest(Shift("imagenet-c", "fog", 1)))
    assert len(images) == 5001
    listed = images.subset("robustbench-5k")
    assert [images.ids[position] for position in listed] == lines
    chosen = choose(images, "robustbench-5k", 0)
    assert sorted(chosen.tolist()) == sorted(listed.tolist())
    assert chosen.tolist() != choose(images, "robustbench-5k", 1).tolist()
    (base / "ILSVRC2012_val_00000017.png").unlink()
    images = CATALOGUE["imagenet-c"].open(OpenRequest(Shift("imagenet-c", "fog", 1)))
    with pytest.raises(BadInputError, match=r"1 of the 5000 images .*00000017"):
        choose(images, "robustbench-5k", 0)


def test_the_subset_belongs_to_imagenet_alone(data, pictures):
    with pytest.raises(BadInputError, match="does not have"):
        choose(open_folder(pictures, workers=0), "robustbench-5k", 0)
    five_thousand(data, 4999)
    val_tree(data)
    images = CATALOGUE["imagenet"].open(OpenRequest(Shift("imagenet")))
    with pytest.raises(BadInputError, match="must name 5000 images, got 4999"):
        images.subset("robustbench-5k")


def test_the_list_is_found_in_the_robustbench_package(data, monkeypatch):
    if importlib.util.find_spec("robustbench"):
        lines = robustbench_list().read_text(encoding="utf-8").split()
        assert len(set(lines)) == 5000
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInputError, match=r"tried .*data/imagenet_test_image_ids\.txt; .*robustbench\]"):
        robustbench_list()
