# SPDX-License-Identifier: Apache-2.0
"""Data that the user brings: folders, shards, Hugging Face datasets."""

import io
import sys
import tarfile
import types

import numpy as np
import pytest
from PIL import Image

from tta_bench.data.catalogue.families import folder, hf, wds
from tta_bench.data.dataset import OpenRequest
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.layouts import hub
from tta_bench.errors import BadInputError

from .trees import colour, paint

SMALL = Preprocess((32, 32), 36)


def jpeg(label):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), colour(label)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def check_pixels(images):
    loaded = images.load(range(len(images)), SMALL).float().mean((2, 3)).numpy()
    assert np.abs(loaded - np.array([colour(label) for label in images.labels])).max() < 4


@pytest.mark.parametrize("rest", ["", ":fog", ":fog:3", ":all", ":all:3"])
def test_folder_splits_its_path_from_the_shift(tmp_path, rest):
    path = tmp_path / "with:colon"
    for label, name in enumerate(("Zebra", "ant", "big_cat")):
        paint(path / name / f"{name}.jpg", label)
        paint(path / name / "deep" / f"{name}.jpg", label)
    dataset, shift = folder(f"{path}{rest}")
    assert shift == rest[1:]
    assert dataset.class_names == ("Zebra", "ant", "big cat")
    images = dataset.open(OpenRequest(dataset.shifts(("fog",) if rest else ())[0], options={"workers": 0}))
    assert images.ids == [
        f"{name}/{deep}{name}" for deep in ("", "deep/") for name in ("Zebra", "ant", "big_cat")
    ]
    assert images.labels.tolist() == [0, 1, 2] * 2
    if not rest:
        check_pixels(images)


def test_folder_without_classes_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="which is not there"):
        folder(str(tmp_path / "nothing"))
    paint(tmp_path / "only" / "a.jpg", 0)
    with pytest.raises(BadInputError, match="two at least, got only"):
        folder(str(tmp_path))


def write_shard(path, samples, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in samples:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("picture", ["jpg", "input.jpg"])
def test_shards_are_read_in_place_and_in_order(tmp_path, picture):
    label = "cls" if picture == "jpg" else "output.cls"
    for number, labels in enumerate([(2, 0), (1, 2)]):
        samples = []
        for key, one in enumerate(labels):
            samples += [(f"{key:03d}.{picture}", jpeg(one)), (f"{key:03d}.{label}", f"{one}\n".encode())]
        write_shard(tmp_path / "test" / f"serial_{number:05d}.tar", samples)
    (tmp_path / "classnames.txt").write_text("ant\nbee\ncat\n", encoding="utf-8")
    dataset, shift = wds(str(tmp_path / "test"))
    assert (dataset.class_names, shift) == (("ant", "bee", "cat"), "")
    images = dataset.open(OpenRequest(dataset.shifts()[0], options={"workers": 0}))
    assert images.labels.tolist() == [0, 1, 2, 2]
    assert images.ids[:3] == ["serial_00000/001", "serial_00001/000", "serial_00000/000"]
    check_pixels(images)


def test_bad_shards_are_named(tmp_path):
    names = tmp_path / "classnames.txt"
    with pytest.raises(BadInputError, match=r"with \.tar shards"):
        wds(str(tmp_path))
    shard = tmp_path / "a.tar"
    write_shard(shard, [("0.jpg", jpeg(0)), ("0.cls", b"7")])
    with pytest.raises(BadInputError, match=r"classnames\.txt"):
        wds(str(tmp_path))
    names.write_text("ant\nbee\n", encoding="utf-8")
    dataset, _ = wds(str(tmp_path))
    with pytest.raises(BadInputError, match=r"0\.jpg must have a label from 0 to 1 .* got 7"):
        dataset.open(OpenRequest(dataset.shifts()[0]))
    write_shard(shard, [("0.jpg", jpeg(0))])
    with pytest.raises(BadInputError, match="got nothing"):
        dataset.open(OpenRequest(dataset.shifts()[0]))
    write_shard(shard, [("0.jpg", jpeg(0)), ("0.cls", b"1")], "w:gz")
    with pytest.raises(BadInputError, match="uncompressed"):
        dataset.open(OpenRequest(dataset.shifts()[0]))


class ClassLabel:
    names = ("ant", "bee", "cat")


class ImageFeature:
    pass


ImageFeature.__name__ = "Image"


class FakeRows:
    """What ``datasets.load_dataset`` returns, as far as it is used."""

    _fingerprint = "abc"
    labels = (2, 2, 0, 1)

    def __init__(self, features):
        self.features = features

    def cast_column(self, name, feature):
        assert (name, feature.decode) == ("picture", False)
        return self

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, key):
        if key == "kind":
            return list(self.labels)
        return {"picture": {"bytes": jpeg(self.labels[key]), "path": None}}


def fake_package(monkeypatch, features, error=None):
    package = types.ModuleType("datasets")
    package.exceptions = types.SimpleNamespace(DatasetsError=KeyError)
    package.Image = lambda decode: types.SimpleNamespace(decode=decode)

    def load_dataset(repository, split):
        assert (repository, split) == ("org/name", "validation")
        if error:
            raise error
        return FakeRows(features)

    package.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", package)
    hub._loaded.cache_clear()


def test_hub_datasets_give_their_pictures(monkeypatch):
    fake_package(monkeypatch, {"picture": ImageFeature(), "kind": ClassLabel()})
    dataset, shift = hf("org/name:validation:fog:3")
    assert (dataset.name, dataset.class_names, shift) == ("hf:org/name:validation", ClassLabel.names, "fog:3")
    dataset, shift = hf("org/name:validation")
    images = dataset.open(OpenRequest(dataset.shifts()[0], options={"workers": 0}))
    assert images.labels.tolist() == [0, 1, 2, 2]
    assert images.ids == ["validation/2", "validation/3", "validation/0", "validation/1"]
    check_pixels(images)


@pytest.mark.parametrize("label", [-1, None, 3, 1.0, True, "1"])
def test_a_hub_label_that_is_no_class_is_refused(monkeypatch, label):
    fake_package(monkeypatch, {"picture": ImageFeature(), "kind": ClassLabel()})
    monkeypatch.setattr(FakeRows, "labels", (0, label, 1))
    dataset, _ = hf("org/name:validation")
    with pytest.raises(BadInputError, match=r"'validation/1' must have a whole number from 0 to 2 .*, got"):
        dataset.open(OpenRequest(dataset.shifts()[0]))


def test_hub_errors_are_sentences(monkeypatch):
    fake_package(monkeypatch, {"picture": ImageFeature(), "text": object()})
    with pytest.raises(BadInputError, match="one ClassLabel column, got none among picture, text"):
        hf("org/name:validation")
    fake_package(monkeypatch, {}, ConnectionError("offline\nand more"))
    with pytest.raises(BadInputError, match=r"cannot be loaded \(ConnectionError: offline\)"):
        hf("org/name:validation")
    hub._loaded.cache_clear()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInputError, match="pip install datasets"):
        hf("org/name:validation")
    with pytest.raises(BadInputError, match="expects a repository"):
        hf("")
