# SPDX-License-Identifier: Apache-2.0
"""Nothing is left out in silence: what a reader does not read, it refuses or counts."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tta_bench.data.acquire.check import check
from tta_bench.data.catalogue.declare import files_of
from tta_bench.data.catalogue.families import folder, wds
from tta_bench.data.corruptions import corrupt_folder
from tta_bench.data.dataset import OpenRequest, Shift
from tta_bench.data.images.files import Paths, UnreadableImageError, decode
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.layouts.base import image_ids, read_text
from tta_bench.data.layouts.opening import require_one_origin
from tta_bench.data.stream import choose
from tta_bench.errors import BadInputError, UnknownNameError

from .test_layouts_families import jpeg, write_shard
from .trees import CATALOGUE, paint, plant, plant_arrays

SMALL = Preprocess((32, 32), 36)


def opened(dataset, shift=None, **options):
    return dataset.open(OpenRequest(shift or dataset.shifts()[0], options={"workers": 0, **options}))


@pytest.fixture
def own(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        for number in range(3):
            paint(tmp_path / "own" / name / f"{number}.jpg", label)
    return tmp_path / "own"


# Incomplete sets


def test_a_run_refuses_fewer_images_than_the_dataset_has(data):
    tree = plant("imagenet-a", data)
    images = opened(CATALOGUE["imagenet-a"], tree.shift)
    for subset in ("full", "first-2", "seeded-2"):
        with pytest.raises(
            BadInputError, match=r"imagenet-a has 7,500 images, but only 3 are there.*allow_incomplete=True"
        ):
            choose(images, subset, 0)


def test_an_incomplete_set_may_be_allowed_and_is_marked(data):
    tree = plant("imagenet-a", data)
    images = opened(CATALOGUE["imagenet-a"], tree.shift, allow_incomplete=True)
    assert len(choose(images, "full", 0)) == 3
    assert images.origin == "as distributed, incomplete: 3 of 7,500 images"


def test_the_same_holds_for_arrays(data):
    shift, _, _ = plant_arrays("cifar10-c", data)
    with pytest.raises(BadInputError, match=r"cifar10-c:frost:4 has 10,000 images, but only 4 are there"):
        choose(opened(CATALOGUE["cifar10-c"], shift), "full", 0)
    images = opened(CATALOGUE["cifar10-c"], shift, allow_incomplete=True)
    assert "incomplete: 4 of 10,000" in images.origin
    assert len(choose(images, "full", 0)) == 4


def test_a_part_of_the_training_images_serves_as_source(data):
    paint(data / "imagenet" / "train" / "n01440764" / "a.JPEG", 0)
    images = CATALOGUE["imagenet"].source_split()
    assert len(choose(images, "full", 0)) == 1


def test_distributed_shifts_are_not_mixed_with_generated_ones(data):
    plant("imagenet-c", data)
    plant("imagenet", data)
    dataset = CATALOGUE["imagenet-c"]
    shifts = dataset.shifts(("fog", "snow"), (3,))
    with pytest.raises(
        BadInputError,
        match=r"are generated from imagenet \(imagenet-c:snow:3\) and as distributed \(imagenet-c:fog:3\); .*"
        "allow_incomplete=True",
    ):
        require_one_origin(dataset, shifts)
    for one in shifts:
        require_one_origin(dataset, [one])
    require_one_origin(CATALOGUE["imagenet-a"], [Shift("imagenet-a")])


# Folders of one's own


@pytest.mark.parametrize("suffix", [".gif", ".GIF", ".heic", ".avif", ".jfif", ".tga"])
def test_images_of_a_format_that_is_not_read_are_named(own, suffix):
    (own / "dog" / f"9{suffix}").write_bytes(b"x")
    with pytest.raises(BadInputError, match=rf"dog holds images of a format that is not read \(9\{suffix}\)"):
        folder(str(own))


def test_the_number_of_names_that_are_not_shown_is_right(own):
    for number in range(5):
        (own / "dog" / f"x{number}.gif").write_bytes(b"x")
    with pytest.raises(BadInputError, match=r"not read \(x0\.gif, x1\.gif, x2\.gif and 2 more\)"):
        folder(str(own))
    for number in (3, 4):
        (own / "dog" / f"x{number}.gif").unlink()
    with pytest.raises(BadInputError, match=r"not read \(x0\.gif, x1\.gif, x2\.gif\)"):
        folder(str(own))


def test_a_link_to_a_class_folder_is_that_folder(own, tmp_path):
    (own / "dog").rename(tmp_path / "dogs")
    (own / "dog").symlink_to(tmp_path / "dogs")
    (own / "cat" / "9.jpg").symlink_to(own / "cat" / "0.jpg")
    dataset = folder(str(own))[0]
    assert opened(dataset).labels.tolist().count(0) == 4
    assert opened(dataset).labels.tolist().count(1) == 3


def test_the_folder_above_the_class_folders_is_refused_with_the_right_one(own):
    for name in ("train", "test"):
        shutil.copytree(own, own.parent / "sets" / name)
    with pytest.raises(BadInputError, match=r"own to be a class.*did you mean folder:.*sets/test\?"):
        folder(str(own.parent / "sets"))
    (own.parent / "beside" / "runs" / "cells").mkdir(parents=True)
    shutil.copytree(own, own.parent / "beside" / "images")
    with pytest.raises(BadInputError, match="must hold images of its own"):
        folder(str(own.parent / "beside"))


def test_a_single_class_is_refused_with_the_right_level(own):
    (own.parent / "one").mkdir()
    shutil.copytree(own, own.parent / "one" / "only")
    with pytest.raises(BadInputError, match=r"two at least, got only, .*did you mean folder:.*one/only\?"):
        folder(str(own.parent / "one"))


def test_a_class_folder_without_images_is_refused(own):
    (own / "emu").mkdir()
    (own / "emu" / "notes.txt").write_text("none yet", encoding="utf-8")
    with pytest.raises(BadInputError, match="emu must hold images of its own"):
        folder(str(own))


def test_images_outside_the_class_folders_are_named(own):
    paint(own / "stray.jpg", 0)
    with pytest.raises(BadInputError, match=r"outside its class folders \(stray\.jpg\)"):
        folder(str(own))


def test_what_desktops_leave_behind_is_no_class(own):
    for name in (".ipynb_checkpoints", "__MACOSX"):
        paint(own / name / "a.jpg", 0)
    (own / ".DS_Store").write_bytes(b"x")
    assert folder(str(own))[0].class_names == ("cat", "dog")


@pytest.mark.parametrize("written", ["", ":fog", ":all"])
def test_corruptions_may_be_named_apart_from_the_path(own, written):
    dataset, _ = folder(f"{own}{written}")
    assert dataset.shifts() == (Shift(f"folder:{own}"),)
    assert dataset.shifts(("fog",), (2,)) == (Shift(f"folder:{own}", "fog", 2),)
    assert len(dataset.shifts(("all",))) == 19
    with pytest.raises(UnknownNameError):
        dataset.shifts(("fogg",))


# Links


def test_a_link_to_an_image_that_leads_nowhere_is_an_image_that_cannot_be_read(own):
    (own / "dog" / "9.jpg").symlink_to(own / "gone.jpg")
    images = opened(folder(str(own))[0])
    assert len(images) == 7
    with pytest.raises(UnreadableImageError, match=r"dog/9\.jpg cannot be decoded"):
        images.load(range(7), SMALL)
    skipping = opened(folder(str(own))[0], bad_image="skip")
    assert len(choose(skipping, "full", 0)) == 6
    assert skipping.bad_images == ["dog/9"]


def test_a_class_folder_that_leads_nowhere_shifts_no_label(own):
    (own / "bee").symlink_to(own.parent / "gone")
    with pytest.raises(BadInputError, match=r"own/bee is a link to .*gone', which is not there"):
        folder(str(own))


def test_links_that_lead_nowhere_are_told_in_datasets_too(data):
    tree = plant("imagenet-a", data)
    base = data / tree.folder
    (base / "n01498041" / "9.jpg").symlink_to("gone.jpg")
    assert len(opened(CATALOGUE["imagenet-a"], tree.shift)) == 4
    [found] = check(CATALOGUE["imagenet-a"], files_of(CATALOGUE["imagenet-a"]))
    assert found.survey.images == 3
    assert any("1 links to images lead nowhere (n01498041/9.jpg)" in problem for problem in found.problems)
    (base / "n02077923").symlink_to("gone")
    with pytest.raises(BadInputError, match="n02077923 is a link to 'gone', which is not there"):
        opened(CATALOGUE["imagenet-a"], tree.shift)


# Shards


def shards(tmp_path, samples, names="ant\nbee\n"):
    (tmp_path / "classnames.txt").write_text(names, encoding="utf-8")
    write_shard(tmp_path / "a.tar", samples)
    dataset, _ = wds(str(tmp_path))
    return opened(dataset)


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (
            [("i.0.jpg", "0"), ("i.0.cls", b"0"), ("i.1.jpg", "1"), ("i.1.cls", b"1")],
            r"i\.0\.jpg and i\.1\.jpg under one key",
        ),
        ([("i.jpg", "0"), ("i.png", "1"), ("i.cls", b"0")], r"i\.jpg and i\.png under one key, 'i'"),
        (
            [("i.jpg", "0"), ("i.cls", b"0"), ("i.output.cls", b"1")],
            r"i\.cls and i\.output\.cls under one key",
        ),
        (
            [("i.jpg", "0"), ("i.cls", b"0"), ("j.gif", "0"), ("j.cls", b"1")],
            r"1 labels have none that is read \(j\.cls\)",
        ),
    ],
)
def test_samples_that_would_be_lost_are_named(tmp_path, samples, sentence):
    members = [(name, jpeg(int(one)) if isinstance(one, str) else one) for name, one in samples]
    with pytest.raises(BadInputError, match=sentence) as caught:
        shards(tmp_path, members)
    assert "uncompressed" not in str(caught.value), "the shard is one; its names are what is wrong"


def test_compressed_shards_beside_others_are_named(tmp_path):
    write_shard(tmp_path / "b.tar.gz", [("0.jpg", jpeg(0))], "w:gz")
    with pytest.raises(BadInputError, match=r"compressed shards \(b\.tar\.gz\)"):
        shards(tmp_path, [("0.jpg", jpeg(0)), ("0.cls", b"0")])


def test_the_first_images_of_shards_are_spread_over_the_classes(tmp_path):
    members = []
    for number in range(12):
        members += [
            (f"{number:02d}.jpg", jpeg(number // 6)),
            (f"{number:02d}.cls", str(number // 6).encode()),
        ]
    images = shards(tmp_path, members)
    assert sorted(images.labels[choose(images, "first-4", 0)].tolist()) == [0, 0, 1, 1]
    assert images.arrangement == "rounds over the classes"


def test_the_first_images_of_arrays_are_the_first_rows(data):
    shift, _, _ = plant_arrays("cifar10-c", data)
    images = opened(CATALOGUE["cifar10-c"], shift, allow_incomplete=True)
    assert sorted(choose(images, "first-2", 0)) == [0, 1]
    assert images.arrangement == "rows of the file"


# Arrays


@pytest.mark.parametrize("rows", [10_000, 20_000, 40_000, 100_000])
def test_a_file_with_other_than_five_severities_is_not_cut_in_five(data, rows):
    base = data / "CIFAR-10-C"
    base.mkdir()
    np.lib.format.open_memmap(base / "fog.npy", "w+", np.uint8, (rows, 32, 32, 3)).flush()
    np.save(base / "labels.npy", np.arange(rows) % 10)
    with pytest.raises(BadInputError, match=rf"5 blocks of 10,000 images.*got {rows:,} rows"):
        opened(CATALOGUE["cifar10-c"], Shift("cifar10-c", "fog", 1))


def test_labels_that_do_not_repeat_are_refused(data):
    shift, _, _ = plant_arrays("cifar10-c", data)
    np.save(data / "CIFAR-10-C" / "labels.npy", np.arange(20) % 7)
    with pytest.raises(BadInputError, match="must repeat the labels of one severity 5 times"):
        opened(CATALOGUE["cifar10-c"], shift)


# Lists and names


def test_domainnets_train_and_test_lists_are_one_set(data):
    base = data / "domainnet126"
    lists = {
        "train": [("sketch/zebra/1.jpg", 125), ("sketch/zebra/2.jpg", 125)],
        "test": [("sketch/cello/3.jpg", 30)],
    }
    for part, lines in lists.items():
        for path, label in lines:
            paint(base / path, label)
        text = "".join(f"{path} {label}\n" for path, label in lines)
        (base / f"sketch126_{part}.txt").write_text(text, encoding="utf-8")
    shift = Shift("domainnet126", "sketch")
    assert sorted(opened(CATALOGUE["domainnet126"], shift).labels) == [30, 125, 125]
    (base / "sketch126_train.txt").unlink()
    with pytest.raises(BadInputError, match=r"sketch126_train\.txt is missing"):
        opened(CATALOGUE["domainnet126"], shift)


def test_objectnet_declares_its_count(data):
    tree = plant("objectnet", data)
    with pytest.raises(BadInputError, match="objectnet has 18,574 images, but only 3 are there"):
        choose(opened(CATALOGUE["objectnet"], tree.shift), "full", 0)


def test_imagenet_d_is_prompted_with_imagenets_names():
    dataset, imagenet = CATALOGUE["imagenet-d"], CATALOGUE["imagenet"]
    assert dataset.class_names == tuple(imagenet.class_names[index] for index in dataset.class_indices)
    folders = [name.replace("_", " ") for name in files_of(dataset).layout.classes]
    assert sum(a != b for a, b in zip(dataset.class_names, folders, strict=True)) == 40
    assert "40 of the 109" in " ".join(files_of(dataset).notes)
    assert files_of(CATALOGUE["objectnet"]).notes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path, encoding, end):
    (tmp_path / "classnames.txt").write_bytes(end.join(["ant", "bée", ""]).encode(encoding))
    write_shard(tmp_path / "a.tar", [("0.jpg", jpeg(0)), ("0.cls", "﻿0\r\n".encode())])
    assert wds(str(tmp_path))[0].class_names == ("ant", "bée")
    assert opened(wds(str(tmp_path))[0]).labels.tolist() == [0]
    assert read_text(tmp_path / "classnames.txt") == "ant\nbée\n"


def test_a_byte_order_mark_is_no_part_of_a_list(data):
    tree = plant("waterbirds", data)
    before = opened(CATALOGUE["waterbirds"], tree.shift)
    path = data / tree.folder / "metadata.csv"
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert opened(CATALOGUE["waterbirds"], tree.shift).ids == before.ids
    tree = plant("dtd", data)
    path = data / tree.folder / "split_zhou_DescribableTextures.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8-sig")
    assert len(opened(CATALOGUE["dtd"], tree.shift)) == 2


# Ids, and trees that `data corrupt` writes


def test_ids_have_no_suffix_unless_they_need_it():
    paths = ["a/1.JPEG", "a/2.jpg", "a/2.png", "a/3", "b/0.0001_x_0.8.jpg", "b/0.0002_x_0.9.jpg"]
    assert image_ids(paths) == ["a/1", "a/2.jpg", "a/2.png", "a/3", "b/0.0001_x_0.8", "b/0.0002_x_0.9"]


def test_a_corrupted_copy_has_the_ids_and_order_of_the_original(own, tmp_path):
    corrupt_folder(own, tmp_path / "made", ["fog"], [1])
    clean, copy = opened(folder(str(own))[0]), opened(folder(str(tmp_path / "made" / "fog" / "1"))[0])
    assert copy.ids == clean.ids
    assert choose(copy, "full", 3).tolist() == choose(clean, "full", 3).tolist()


@pytest.mark.parametrize("suffix", [".png", ".JPEG", ".bmp"])
def test_the_format_of_the_original_decides_no_random_number(tmp_path, suffix):
    pixels = np.full((40, 40, 3), 128, np.uint8)
    for number, one in enumerate((".png", suffix)):
        (tmp_path / f"src{number}" / "cat").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / f"src{number}" / "cat" / f"0{one}")
        corrupt_folder(tmp_path / f"src{number}", tmp_path / f"dst{number}", ["gaussian_noise"], [1])
    first, second = (
        np.array(Image.open(tmp_path / f"dst{n}" / "gaussian_noise/1/cat/0.png")) for n in (0, 1)
    )
    assert np.array_equal(first, second)


def test_a_flat_source_is_refused_with_the_way_out(own, tmp_path):
    paint(own / "flat.jpg", 0)
    with pytest.raises(
        BadInputError, match=r"1 images outside class folders \(flat\.jpg\).*one folder per class"
    ):
        corrupt_folder(own, tmp_path / "made", ["fog"], [1])


def test_imagenet_c_is_generated_with_the_strengths_of_the_distributed_files(data):
    paint(data / "imagenet" / "val" / "n01440764" / "ILSVRC2012_val_00000001.JPEG", 0, (300, 300))
    shift = Shift("imagenet-c", "elastic_transform", 1)
    default = opened(CATALOGUE["imagenet-c"], shift)
    named = opened(CATALOGUE["imagenet-c"], shift, elastic="original")
    other = opened(CATALOGUE["imagenet-c"], shift, elastic="imagecorruptions")
    assert default.data_hash == named.data_hash != other.data_hash
    assert default.origin == "generated from imagenet (elastic=original, frost=generated textures)"
    assert other.origin == "generated from imagenet (elastic=imagecorruptions, frost=generated textures)"


@pytest.mark.parametrize("base", ["imagenetv2-matched-frequency-format-val", "."])
def test_imagenet_v2_in_wnid_folders_has_its_own_sentence(data, base):
    for wnid in ("n01440764", "n01443537"):
        paint(data / "imagenet-v2" / base / wnid / "a.jpeg", 0)
    with pytest.raises(
        BadInputError, match="names its class folders by wnid, and the official ones are the numbers"
    ):
        opened(CATALOGUE["imagenet-v2"], Shift("imagenet-v2", "matched-frequency"))


@pytest.mark.parametrize(("size", "border"), [((4, 4), 2), ((3, 9), 2), ((1, 1), 2), ((2, 2), 1)])
def test_an_image_smaller_than_its_border_is_named(tmp_path, size, border):
    Image.new("RGB", size).save(tmp_path / "a.png")
    with pytest.raises(
        UnreadableImageError, match=rf"a\.png .*{size[0]}x{size[1]} and has a border of {border} pixels"
    ):
        decode(Paths(tmp_path, ["a.png"]), 0, border)
    Image.new("RGB", (5, 6)).save(tmp_path / "b.png")
    assert decode(Paths(tmp_path, ["b.png"]), 0, 2).size == (1, 2)
