# SPDX-License-Identifier: Apache-2.0
"""Every dataset of files in its official layout: right labels, or the sentence that says how to fix the folder."""

import shutil

import numpy as np
import pytest

from tta_bench.data.acquire.check import check
from tta_bench.data.catalogue.declare import files_of
from tta_bench.data.dataset import OpenRequest
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.layouts.arrays import ArrayLayout
from tta_bench.data.layouts.opening import find
from tta_bench.errors import BadInputError

from .trees import CATALOGUE, TREES, colour, paint, plant

NAMES = sorted(TREES)
SMALL = Preprocess((32, 32), 36)
LISTED = (
    "domainnet126", "visda-c", "waterbirds", "caltech101", "oxford-pets", "stanford-cars", "flowers102", "food101",
    "sun397", "dtd", "eurosat", "ucf101", "fgvc-aircraft",
)  # fmt: skip
FOLDERS = sorted(set(TREES) - set(LISTED))


def open_shift(name, shift, **options):
    return CATALOGUE[name].open(OpenRequest(shift, options={"workers": 0, **options}))


def labels_by_file(images):
    return {
        image_id.rpartition("/")[2]: int(label)
        for image_id, label in zip(images.ids, images.labels, strict=True)
    }


def wanted(tree):
    return {path.rpartition("/")[2].rpartition(".")[0]: label for path, label in tree.pictures.items()}


def check_pixels(images):
    loaded = images.load(range(len(images)), SMALL).float().mean((2, 3)).numpy()
    painted = np.array([colour(label) for label in images.labels])
    assert np.abs(loaded - painted).max() < 4


def test_every_dataset_of_the_catalogue_has_a_small_copy():
    arrays = {
        name for name, dataset in CATALOGUE.items() if isinstance(files_of(dataset).layout, ArrayLayout)
    }
    assert set(TREES) | arrays == set(CATALOGUE)


@pytest.mark.parametrize("name", NAMES)
def test_labels_come_from_names_and_pictures_belong_to_them(name, data):
    tree = plant(name, data)
    images = open_shift(name, tree.shift)
    assert len(images) == len(tree.pictures) == len(set(images.ids))
    if len(set(wanted(tree))) == len(tree.pictures):
        assert labels_by_file(images) == wanted(tree)
    assert sorted(images.labels.tolist()) == sorted(tree.pictures.values())
    check_pixels(images)


@pytest.mark.parametrize("name", NAMES)
def test_strangers_in_the_folder_change_nothing(name, data):
    tree = plant(name, data)
    before = open_shift(name, tree.shift)
    folder = data / tree.folder
    first = (folder / next(iter(tree.pictures))).parent
    (first / "Thumbs.db").write_bytes(b"x")
    (first / ("._" + next(iter(tree.pictures)).rpartition("/")[2])).write_bytes(b"resource fork")
    paint(first.parent / "0_no_class_of_this" / "a.jpg", 3)
    (folder / "README.txt").write_text("hello", encoding="utf-8")
    after = open_shift(name, tree.shift)
    assert (after.ids, after.labels.tolist(), after.data_hash) == (
        before.ids,
        before.labels.tolist(),
        before.data_hash,
    )


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_name_the_paths_and_the_command(name, data):
    tree = TREES[name]
    shift = tree.shift._replace(dataset=name)
    with pytest.raises(BadInputError) as caught:
        open_shift(name, shift)
    sentence = str(caught.value)
    official = files_of(CATALOGUE[name]).folders[0]
    assert str(data / official) in sentence
    assert f"tta-bench data prepare {name}" in sentence
    assert "TTA_BENCH_DATA" in sentence


@pytest.mark.parametrize("name", NAMES)
def test_an_extra_folder_level_is_named_with_the_command_that_mends_it(name, data):
    tree = plant(name, data)
    folder = data / tree.folder
    shutil.move(folder, data / "moved")
    folder.mkdir()
    shutil.move(data / "moved", folder / "inside")
    with pytest.raises(BadInputError, match=r"one folder too deep.*`mv .*inside/\* "):
        open_shift(name, tree.shift)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_rank_of_a_folder_means_nothing(name, data):
    """Only one class is there, so that its rank is 0 whatever its label."""
    tree = plant(name, data)
    path, label = max(tree.pictures.items(), key=lambda item: item[1])
    for other in tree.pictures:
        if other != path:
            (data / tree.folder / other).unlink()
    assert open_shift(name, tree.shift).labels.tolist() == [label]


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_may_be_spelled_otherwise_or_be_the_root_itself(name, data, monkeypatch):
    tree = plant(name, data)
    other = tree.folder.upper().replace("-", "_")
    (data / tree.folder).rename(data / other)
    assert len(open_shift(name, tree.shift)) == len(tree.pictures)
    monkeypatch.setenv("TTA_BENCH_DATA", str(data / other))
    assert len(open_shift(name, tree.shift)) == len(tree.pictures)


def test_a_root_that_is_named_by_a_dot_is_the_dataset(data, monkeypatch):
    tree = plant("imagenet-a", data)
    monkeypatch.chdir(data / tree.folder)
    monkeypatch.setenv("TTA_BENCH_DATA", ".")
    assert len(open_shift("imagenet-a", tree.shift)) == len(tree.pictures)


@pytest.mark.parametrize("name", NAMES)
def test_the_second_data_root_is_looked_into(name, tmp_path, data, monkeypatch):
    tree = plant(name, tmp_path / "second")
    monkeypatch.setenv("TTA_BENCH_DATA", f"{data}:{tmp_path / 'second'}")
    assert find(files_of(CATALOGUE[name]), tree.shift) == tmp_path / "second" / tree.folder


@pytest.mark.parametrize("name", NAMES)
def test_check_counts_without_decoding(name, data):
    tree = plant(name, data)
    for path in tree.pictures:  # bytes that no decoder takes
        (data / tree.folder / path).write_bytes(b"not a picture")
    findings = {str(one.shift): one for one in check(CATALOGUE[name], files_of(CATALOGUE[name]))}
    found = findings[str(tree.shift)]
    assert found.survey.images == len(tree.pictures)
    assert found.survey.classes == len(set(tree.pictures.values()))
    assert len(found.survey.first_hash) == 16
    assert found.problems  # a small copy is never complete


@pytest.mark.parametrize("name", ["caltech101", "oxford-pets", "dtd", "ucf101"])
def test_a_split_file_in_another_order_is_refused(name, data):
    tree = plant(name, data)
    file = next(iter(tree.files))
    path = data / tree.folder / file
    path.write_text('{"test": [["a/b.jpg", 1, "no such class"]]}', encoding="utf-8")
    with pytest.raises(BadInputError, match="label 1 and the name 'no such class'"):
        open_shift(name, tree.shift)
    path.write_text("<html>sign in</html>", encoding="utf-8")
    with pytest.raises(BadInputError, match="must be a JSON file"):
        open_shift(name, tree.shift)
    path.write_text('{"train": []}', encoding="utf-8")
    with pytest.raises(BadInputError, match="must have a list named 'test'"):
        open_shift(name, tree.shift)


def test_a_list_that_numbers_classes_otherwise_is_refused(data):
    tree = plant("domainnet126", data)
    path = data / tree.folder / "sketch_list.txt"
    path.write_text("sketch/zebra/sketch_344_000001.jpg 124\n", encoding="utf-8")
    with pytest.raises(BadInputError, match=r"line 1 of .* is class 125"):
        open_shift("domainnet126", tree.shift)
    path.write_text("sketch/zebra/sketch_344_000001.jpg zebra\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="must be an image path and a label from 0 to 125"):
        open_shift("domainnet126", tree.shift)


@pytest.mark.parametrize("name", ["domainnet126", "visda-c"])
def test_without_its_list_all_images_of_the_folders_are_read(name, data):
    tree = plant(name, data)
    listed = open_shift(name, tree.shift)
    (data / tree.folder / next(iter(tree.files))).unlink()
    walked = open_shift(name, tree.shift)
    assert dict(zip(walked.ids, walked.labels, strict=True)) == dict(
        zip(listed.ids, listed.labels, strict=True)
    )


@pytest.mark.parametrize("spelling", ["Real World", "Real_World", "RealWorld"])
def test_the_folder_with_a_space_may_be_renamed(spelling, data):
    tree = plant("officehome", data)
    (data / tree.folder / "Real World").rename(data / tree.folder / spelling)
    assert labels_by_file(open_shift("officehome", tree.shift))["00003"] == 64


def test_two_folders_of_one_class_are_refused(data):
    tree = plant("officehome", data)
    paint(data / tree.folder / "Real World" / "alarm clock" / "x.jpg", 0)
    with pytest.raises(BadInputError, match="both the class 'Alarm_Clock'"):
        open_shift("officehome", tree.shift)


@pytest.mark.parametrize("truth", ["folders", "synsets", "solution"])
def test_flat_imagenet_is_labelled_by_its_ground_truth(truth, data):
    root = data / "imagenet"
    wnids = {1: "n15075141", 2: "n01440764", 3: "n01443537"}
    for number in wnids:
        paint(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", number)
    shift = TREES["imagenet"].shift
    if truth == "folders":
        with pytest.raises(BadInputError, match=r"without class folders.*ILSVRC2012_devkit_t12"):
            open_shift("imagenet", shift)
        return
    if truth == "synsets":
        path = root / "imagenet_2012_validation_synset_labels.txt"
        path.write_text("\n".join(wnids.values()), encoding="utf-8")
    else:
        lines = [f"ILSVRC2012_val_{number:08d},{wnid} 1 2 3 4" for number, wnid in wnids.items()]
        content = "\n".join(["ImageId,PredictionString", *reversed(lines)])
        (root / "LOC_val_solution.csv").write_text(content, encoding="utf-8")
    images = open_shift("imagenet", shift)
    assert dict(zip(images.ids, images.labels.tolist(), strict=True)) == {
        "n15075141/ILSVRC2012_val_00000001": 999,
        "n01440764/ILSVRC2012_val_00000002": 0,
        "n01443537/ILSVRC2012_val_00000003": 1,
    }


def test_flat_imagenet_with_the_development_kit(data):
    from scipy.io import savemat

    kit = data / "imagenet" / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    kind = np.dtype([("ILSVRC2012_ID", "f8"), ("WNID", "U9")])
    savemat(kit / "meta.mat", {"synsets": np.array([(1, "n02119789"), (2, "n15075141")], dtype=kind)})
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n1\n", encoding="utf-8")
    for number in (1, 2):
        paint(data / "imagenet" / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", number)
    images = open_shift("imagenet", TREES["imagenet"].shift)
    assert {
        i: CATALOGUE["imagenet"].class_names[label]
        for i, label in zip(images.ids, images.labels, strict=True)
    } == {
        "n15075141/ILSVRC2012_val_00000001": "toilet paper",
        "n02119789/ILSVRC2012_val_00000002": "kit fox",
    }


def test_training_images_are_no_validation_set(data):
    paint(data / "imagenet" / "train" / "n01440764" / "n01440764_1.JPEG", 0)
    with pytest.raises(BadInputError, match=r"needs .*imagenet/val, which is not there; .*prepare imagenet"):
        open_shift("imagenet", TREES["imagenet"].shift._replace(dataset="imagenet"))
    source = CATALOGUE["imagenet-c"].source_split()
    assert (source.ids, source.labels.tolist()) == (["n01440764/n01440764_1"], [0])


def test_archive_folder_above_the_corruption_is_accepted(data):
    tree = plant("imagenet-c", data)
    plain = open_shift("imagenet-c", tree.shift)
    before = plain.data_hash
    folder = data / tree.folder
    (folder / "weather").mkdir()
    (folder / "fog").rename(folder / "weather" / "fog")
    kept = open_shift("imagenet-c", tree.shift)
    assert (kept.ids, kept.data_hash) == (plain.ids, before)


def test_first_images_are_spread_over_the_classes(data):
    tree = plant("pacs", data)
    for number in range(5):
        paint(data / "PACS" / "sketch" / "dog" / f"0_{number}.png", 0)
    images = open_shift("pacs", tree.shift)
    assert images.labels[:3].tolist() == [0, 4, 6]
    assert images.labels[3:].tolist() == [0] * 5


def test_the_frame_of_objectnet_is_cut(data):
    from PIL import Image, ImageDraw

    path = data / "objectnet-1.0" / "images" / "wok" / "a.png"
    path.parent.mkdir(parents=True)
    image = Image.new("RGB", (60, 40), (0, 0, 200))
    ImageDraw.Draw(image).rectangle((0, 0, 59, 39), outline=(255, 0, 0))
    image.save(path)
    images = open_shift("objectnet", TREES["objectnet"].shift._replace(dataset="objectnet"))
    loaded = images.load([0], Preprocess((36, 56), None))
    assert (loaded[0, 0] == 0).all()
    assert (loaded[0, 2] == 200).all()
