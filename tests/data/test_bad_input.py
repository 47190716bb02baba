# SPDX-License-Identifier: Apache-2.0
"""Files and folders that no reader can use: one sentence each, and no traceback."""

import json
import os
import pickle

import numpy as np
import pytest

from tta_bench.data.acquire.prepare import get
from tta_bench.data.catalogue.families import folder, wds
from tta_bench.data.corruptions import Options, corrupt_folder
from tta_bench.data.dataset import OpenRequest, find_dataset
from tta_bench.data.images import files as pictures
from tta_bench.data.images.files import Paths, UnreadableImageError, decode
from tta_bench.data.stream import choose
from tta_bench.errors import BadInputError

from .test_layouts_families import jpeg, write_shard
from .trees import CATALOGUE, TREES, paint, plant, plant_arrays


def open_shift(name, shift):
    return CATALOGUE[name].open(OpenRequest(shift, options={"workers": 0}))


def open_folder(path):
    dataset, _ = folder(str(path))
    return dataset.open(OpenRequest(dataset.shifts()[0], options={"workers": 0}))


@pytest.fixture
def classes(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        paint(tmp_path / "pictures" / name / "a.jpg", label)
    return tmp_path / "pictures"


@pytest.mark.parametrize("target", ["..", ".", "../dog/back"])
def test_a_link_in_a_circle_is_named(classes, target):
    (classes / "dog" / "back").symlink_to("../cat")
    (classes / "cat" / "up").symlink_to(target)
    with pytest.raises(
        BadInputError, match=r"cat/up must not be a link to a folder|must be a folder or a file"
    ):
        open_folder(classes)


def test_a_link_to_itself_is_named(classes):
    (classes / "cat" / "self").symlink_to("self")
    with pytest.raises(
        BadInputError, match=r"cat/self must be a folder or a file that can be read, but Too many"
    ):
        open_folder(classes)


def test_links_to_other_folders_are_followed(classes, tmp_path):
    paint(tmp_path / "more" / "b.jpg", 0)
    (classes / "cat" / "one").symlink_to(tmp_path / "more")
    (classes / "cat" / "two").symlink_to(tmp_path / "more")
    assert open_folder(classes).ids == ["cat/a", "dog/a", "cat/one/b", "cat/two/b"]


@pytest.mark.parametrize("name", [b"cat/caf\xe9.jpg", b"cat/caf\xe9/b.jpg", b"caf\xe9/b.jpg"])
def test_names_that_are_not_utf8_are_refused(classes, name):
    path = os.path.join(os.fsencode(classes), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(jpeg(0))
    with pytest.raises(BadInputError, match=r"must be UTF-8, got b'caf\\xe9") as caught:
        open_folder(classes)
    str(caught.value).encode()


def test_a_decoder_that_fails_in_its_own_way_makes_the_picture_unreadable(classes, monkeypatch):
    def fail(path):
        raise RuntimeError("Failed to decode frame 0")

    monkeypatch.setattr(pictures.Image, "open", fail)
    with pytest.raises(UnreadableImageError, match=r"a\.jpg cannot be decoded \(RuntimeError: Failed"):
        decode(Paths(classes, ["cat/a.jpg"]), 0)


def test_a_broken_frost_picture_is_named(classes, tmp_path):
    (tmp_path / "frost").mkdir()
    (tmp_path / "frost" / "a.png").write_bytes(b"no picture")
    options = Options(frost_dir=tmp_path / "frost")
    with pytest.raises(BadInputError, match=r"the frost image .*a\.png cannot be decoded .*; replace it"):
        corrupt_folder(classes, tmp_path / "out", ["frost"], [1], options=options)


@pytest.mark.parametrize("content", ['{"schema_version": 1, "sett', "[]", '{"settings": 3}'])
def test_a_damaged_manifest_is_named(classes, tmp_path, content):
    corrupt_folder(classes, tmp_path / "out", ["contrast"], [1])
    assert not list((tmp_path / "out").glob(".*"))
    (tmp_path / "out" / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(BadInputError, match=r"manifest\.json must be .* remove it"):
        corrupt_folder(classes, tmp_path / "out", ["contrast"], [1])


def test_a_target_that_is_a_file_is_refused(classes, tmp_path):
    (tmp_path / "out").write_text("x", encoding="utf-8")
    for target in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(BadInputError, match=r"the target .* must be a folder that can be written"):
            corrupt_folder(classes, target, ["contrast"], [1])


def test_a_data_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "root").write_text("x", encoding="utf-8")
    with pytest.raises(
        BadInputError, match=r"the data folder must be .* got .*root \((File exists|Not a directory)\)"
    ):
        get([], tmp_path / "root")


def test_a_folder_with_the_name_of_a_shard_is_passed_over(tmp_path):
    (tmp_path / "classnames.txt").write_text("ant\nbee\n", encoding="utf-8")
    (tmp_path / "d.tar").mkdir()
    with pytest.raises(BadInputError, match=r"with \.tar shards"):
        wds(str(tmp_path))
    write_shard(tmp_path / "a.tar", [("0.jpg", jpeg(0)), ("0.cls", b"1")])
    dataset, _ = wds(str(tmp_path))
    assert len(dataset.open(OpenRequest(dataset.shifts()[0]))) == 1


@pytest.mark.parametrize("label", ["²", "-1", "1.0"])
def test_a_shards_label_that_is_no_number_is_refused(tmp_path, label):
    (tmp_path / "classnames.txt").write_text("ant\nbee\n", encoding="utf-8")
    write_shard(tmp_path / "a.tar", [("0.jpg", jpeg(0)), ("0.cls", label.encode())])
    dataset, _ = wds(str(tmp_path))
    with pytest.raises(BadInputError, match="must have a label from 0 to 1"):
        dataset.open(OpenRequest(dataset.shifts()[0]))


def test_class_names_that_are_not_utf8_are_refused(tmp_path):
    (tmp_path / "classnames.txt").write_bytes(b"caf\xe9\n")
    write_shard(tmp_path / "a.tar", [("0.jpg", jpeg(0)), ("0.cls", b"0")])
    with pytest.raises(BadInputError, match=r"classnames\.txt must be a text file in UTF-8"):
        wds(str(tmp_path))


@pytest.mark.parametrize("here", ["inside", "beside"])
def test_the_class_names_inside_the_folder_win(tmp_path, here):
    write_shard(tmp_path / "test" / "a.tar", [("0.jpg", jpeg(0)), ("0.cls", b"0")])
    (tmp_path / "classnames.txt").write_text("outer\nbee\n", encoding="utf-8")
    if here == "inside":
        (tmp_path / "test" / "classnames.txt").write_text("inner\nbee\n", encoding="utf-8")
    wanted = "inner" if here == "inside" else "outer"
    for path in (tmp_path / "test", tmp_path / "test" / "a.tar"):
        assert wds(str(path))[0].class_names[0] == wanted


@pytest.mark.parametrize(
    "batch",
    [
        {"data": np.zeros((2, 3000), np.uint8), "labels": [0, 1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": 3},
        {"data": [[0, 1], [2]], "labels": [0, 1]},
    ],
)
def test_a_batch_of_another_shape_is_refused(data, batch):
    shift, _, _ = plant_arrays("cifar10", data)
    (data / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(batch))
    with pytest.raises(BadInputError, match=r"must hold 'data' \(n, 3072\) and 'labels' \(n,\), but"):
        open_shift("cifar10", shift)


@pytest.mark.parametrize(
    "labels",
    [np.array(["a"] * 20), np.zeros((20, 1), np.uint8), np.zeros(20), np.array(3), np.zeros(20, bool)],
)
def test_labels_that_are_no_whole_numbers_are_refused(data, labels):
    shift, _, _ = plant_arrays("cifar10-c", data)
    np.save(data / "CIFAR-10-C" / "labels.npy", labels)
    with pytest.raises(
        BadInputError, match=r"must be (whole numbers \(n,\)|a NumPy array of several rows), got"
    ):
        open_shift("cifar10-c", shift)


@pytest.mark.parametrize("label", ["landbird", "", "2", "-1", "²"])
def test_a_table_with_another_label_is_refused(data, label):
    tree = plant("waterbirds", data)
    path = data / tree.folder / "metadata.csv"
    path.write_text(f"img_filename,y,split\n001.Albatross/b.jpg,{label},2\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="must have labels 0 to 1 in column y, got"):
        open_shift("waterbirds", tree.shift)


@pytest.mark.parametrize("content", ["Id,PredictionString\n1,2\n", "", "ImageId\nx\n"])
def test_a_ground_truth_without_its_columns_is_refused(data, content):
    paint(data / "imagenet" / "val" / "ILSVRC2012_val_00000001.JPEG", 0)
    (data / "imagenet" / "LOC_val_solution.csv").write_text(content, encoding="utf-8")
    with pytest.raises(
        BadInputError, match=r"LOC_val_solution\.csv must have the column '(ImageId|PredictionS)"
    ):
        open_shift("imagenet", TREES["imagenet"].shift)


def kit(data, truth):
    folder = data / "imagenet" / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(truth, encoding="utf-8")
    paint(data / "imagenet" / "val" / "ILSVRC2012_val_00000001.JPEG", 0)
    return folder / "meta.mat"


def test_a_broken_development_kit_is_named(data):
    from scipy.io import savemat

    meta = kit(data, "x\n")
    savemat(meta, {"other": 1})
    whole = meta.read_bytes()
    for content in (b"", b"garbage" * 50, whole[:150], whole):
        meta.write_bytes(content)
        with pytest.raises(BadInputError, match=r"meta\.mat must be a MATLAB file with the synsets"):
            open_shift("imagenet", TREES["imagenet"].shift)
    kind = np.dtype([("ILSVRC2012_ID", "f8"), ("WNID", "U9")])
    savemat(meta, {"synsets": np.array([(1, "n02119789"), (2, "n15075141")], dtype=kind)})
    with pytest.raises(BadInputError, match=r"must hold numbers of synsets in meta\.mat, got 'x'"):
        open_shift("imagenet", TREES["imagenet"].shift)


def test_a_severity_that_only_looks_like_a_number_is_refused():
    with pytest.raises(BadInputError, match=r"must be 1 to 5, or like 1-5 or \*, got '²'"):
        find_dataset("pocket-c:fog:²")


@pytest.mark.parametrize("name", ["domainnet126", "waterbirds", "caltech101", "fgvc-aircraft"])
def test_a_list_that_leads_out_of_its_folder_is_refused(data, name):
    tree = plant(name, data)
    file, content = next(iter(tree.files.items()))
    inner = next(iter(tree.pictures)).removeprefix("101_ObjectCategories/").removeprefix("images/")
    inner = inner.removesuffix(".jpg") if name == "fgvc-aircraft" else inner
    for outer in (f"../{inner}", f"/{inner}"):
        if not (name == "caltech101" and outer.startswith("/")):  # such split files begin paths with a slash
            (data / tree.folder / file).write_text(content.replace(inner, outer), encoding="utf-8")
            with pytest.raises(BadInputError, match="which leads out of it"):
                open_shift(name, tree.shift)


@pytest.mark.parametrize(
    ("name", "content"),
    [("domainnet126", "\n"), ("caltech101", json.dumps({"test": []})), ("waterbirds", None)],
)
def test_a_list_without_images_makes_no_stream(data, name, content):
    tree = plant(name, data)
    text = "img_filename,y,split\n" if content is None else content
    (data / tree.folder / next(iter(tree.files))).write_text(text, encoding="utf-8")
    with pytest.raises(BadInputError, match="at least one image, got none"):
        choose(open_shift(name, tree.shift), "full", 0)
