# SPDX-License-Identifier: Apache-2.0
"""The MNIST family in its official files: the right pixels with the right labels, or a sentence."""

import gzip
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tta_bench.data.acquire.check import check
from tta_bench.data.catalogue.declare import files_of
from tta_bench.data.corruptions import corrupt
from tta_bench.data.dataset import OpenRequest, Shift
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.layouts.idx import read_idx, write_idx
from tta_bench.errors import BadInputError, UnknownNameError

from .trees import CATALOGUE

AS_IS = Preprocess((32, 32))
LABELS = np.array([9, 0, 3, 1], dtype=np.uint8)
FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


def grey(seed=0, count=4):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def idx(values, kind=0x08):
    """An idx file as the format's own description has it."""
    head = struct.pack(">HBB", 0, kind, values.ndim) + b"".join(struct.pack(">I", n) for n in values.shape)
    return head + values.tobytes()


def plant(folder, images, labels=LABELS, split="t10k", packed=(True, True)):
    folder.mkdir(parents=True, exist_ok=True)
    for kind, values, pack in zip(("images-idx3", "labels-idx1"), (images, labels), packed, strict=True):
        path, content = folder / f"{split}-{kind}-ubyte", idx(values)
        if pack:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
        else:
            path.write_bytes(content)


def open_shift(name, *shift, **more):
    return CATALOGUE[name].open(OpenRequest(Shift(name, *shift), **more))


def check_pixels(loaded, images):
    assert loaded.shape == (len(images), 3, 32, 32)
    for channel in loaded.unbind(1):
        assert (channel[:, 2:30, 2:30].numpy() == images).all()
        assert channel.sum() == images.sum(dtype=np.int64)


@pytest.mark.parametrize("packed", [(True, True), (False, False), (True, False)])
@pytest.mark.parametrize("below", [".", "raw"])
@pytest.mark.parametrize("name", FOLDERS)
def test_pixels_and_labels_of_idx_files(name, below, packed, data):
    plant(data / FOLDERS[name] / below, grey(), packed=packed)
    found = open_shift(name)
    assert found.labels.tolist() == LABELS.tolist()
    assert found.ids == ["00000", "00001", "00002", "00003"]
    check_pixels(found.load([2, 0], AS_IS), grey()[[2, 0]])


def test_the_hash_is_that_of_the_images_however_they_are_packed(data):
    hashes = set()
    for below, packed in (("a", True), ("b", False)):
        plant(data / below / "MNIST", grey(), packed=(packed, packed))
    for images, labels, below in ((grey(), LABELS, "."), (grey(1), LABELS, "c"), (grey(), LABELS[::-1], "d")):
        plant(data / below / "FashionMNIST" if below != "." else data / "FashionMNIST", images, labels)
    with pytest.MonkeyPatch.context() as patch:
        for below in ("a", "b"):
            patch.setenv("TTA_BENCH_DATA", str(data / below))
            hashes.add(open_shift("mnist").data_hash)
        assert len(hashes) == 1
        for below in (".", "c", "d"):
            patch.setenv("TTA_BENCH_DATA", str(data / below))
            hashes.add(open_shift("fashion-mnist").data_hash)
    assert len(hashes) == 3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 5), st.integers(1, 4), st.integers(0, 1000))
def test_an_idx_file_survives_writing_and_reading(tmp_path_factory, first, second, seed):
    values = np.random.default_rng(seed).integers(0, 256, (first, second), dtype=np.uint8)
    path = tmp_path_factory.mktemp("idx") / "values.gz"
    write_idx(path, values)
    assert gzip.decompress(path.read_bytes()) == idx(values)
    assert (read_idx(path, 2) == values).all()
    assert read_idx(path, 2).shape == values.shape


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (gzip.compress(idx(grey()))[:-20], "must be a whole gzip file"),
        (b"\x1f\x8b" + bytes(40), "must be a whole gzip file"),
        (b"<html>", r"begins with 3c68746d"),
        (b"", "begins with nothing"),
        (idx(grey().astype(np.float32), 0x0D), "unsigned bytes in 3 dimensions"),
        (idx(LABELS), "unsigned bytes in 3 dimensions"),
        (idx(grey())[:9], "must name its 3 sizes"),
        (idx(grey())[:-1], r"must hold 3136 values for \(4, 28, 28\), got 3135"),
        (idx(grey()) + b"0", "got 3137"),
        (idx(grey()[:, :27]), r"must hold grey uint8 images \(n, 28, 28\)"),
        (idx(grey(count=3)), "3 images but 4 labels"),
    ],
)
def test_damaged_idx_files_are_named(content, sentence, data):
    plant(data / "MNIST", grey(), packed=(False, True))
    path = data / "MNIST" / "t10k-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=sentence) as caught:
        open_shift("mnist")
    assert str(path) in str(caught.value)
    finding = next(iter(check(CATALOGUE["mnist"], files_of(CATALOGUE["mnist"]))))
    assert finding.problems == (str(caught.value),)


def test_labels_beyond_the_classes_are_refused(data):
    plant(data / "MNIST", grey(), np.array([0, 1, 10, 2], dtype=np.uint8))
    with pytest.raises(BadInputError, match="must be 0 to 9, got 0 to 10"):
        open_shift("mnist")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "fashion-mnist-c", "mnist-c", "fmnist-c"])
def test_missing_files_name_the_path_and_the_command(name, data):
    shift = CATALOGUE[name].shifts()[0]
    with pytest.raises(BadInputError, match=f"`tta-bench data prepare {name}`") as caught:
        CATALOGUE[name].open(OpenRequest(shift))
    assert str(data / files_of(CATALOGUE[name]).folders[0]) in str(caught.value)


@pytest.mark.parametrize("name", ["fashion-mnist-c", "mnist", "mnist-c"])
def test_source_images_are_the_training_split(name, data):
    folder = "FashionMNIST" if name.startswith("fashion") else "MNIST"
    plant(data / folder / "raw", grey(5), LABELS[::-1], "train")
    source = CATALOGUE[name].source_split()
    assert source.labels.tolist() == LABELS[::-1].tolist()
    check_pixels(source.load([1], AS_IS), grey(5)[[1]])


@pytest.mark.parametrize("corruption", ["fog", "gaussian_noise", "pixelate"])
def test_corruptions_of_fashion_mnist_are_generated_with_the_constants_for_32_pixels(corruption, data):
    plant(data / "FashionMNIST", grey())
    clean, found = open_shift("fashion-mnist"), open_shift("fashion-mnist-c", corruption, 3, seed=7)
    assert found.ids == clean.ids
    assert found.origin.startswith("generated from fashion-mnist")
    images = clean.load([3, 1], AS_IS)
    expected = corrupt(images, corruption, 3, 7, ids=["00003", "00001"], scale="cifar")
    assert torch.equal(found.load([3, 1], AS_IS), expected)
    assert torch.equal(found.load([1], AS_IS)[0], expected[1])
    # A larger input is resized after the corruption, not before.
    large = Preprocess((64, 64), 64)
    assert torch.equal(found.load([3, 1], large), large.batch(expected))
    others = [(corruption, 4), ("frost", 3)]
    hashes = {open_shift("fashion-mnist-c", *one, seed=7).data_hash for one in others}
    hashes |= {found.data_hash, open_shift("fashion-mnist-c", corruption, 3).data_hash, clean.data_hash}
    assert len(hashes) == 5


def test_what_generates_is_checked_by_its_clean_files(data):
    plant(data / "FashionMNIST", grey())
    dataset = CATALOGUE["fashion-mnist-c"]
    (finding,) = check(dataset, files_of(dataset))
    assert (finding.shift, finding.survey.images) == (Shift("fashion-mnist-c"), 4)
    assert finding.root == data / "FashionMNIST"
    assert finding.problems


@pytest.mark.parametrize("axis", [(), (1,)])
def test_mnist_c_has_one_folder_for_each_corruption(axis, data):
    for corruption, seed in (("zigzag", 1), ("identity", 2)):
        folder = data / "mnist_c" / corruption
        folder.mkdir(parents=True)
        np.save(folder / "test_images.npy", grey(seed).reshape(4, 28, 28, *axis))
        np.save(folder / "test_labels.npy", LABELS.astype(np.int64))
    dataset = CATALOGUE["mnist-c"]
    assert len(dataset.shifts()) == 15
    assert "identity" not in {shift.corruption for shift in dataset.shifts()}
    assert dataset.shifts(("identity",), (1, 5)) == (Shift("mnist-c", "identity"),)
    for corruption, seed in (("zigzag", 1), ("identity", 2)):
        found = open_shift("mnist-c", corruption)
        assert found.labels.tolist() == LABELS.tolist()
        assert found.origin == "as distributed"
        check_pixels(found.load([0, 3], AS_IS), grey(seed)[[0, 3]])
    with pytest.raises(BadInputError, match="stripe"):
        open_shift("mnist-c", "stripe")
    with pytest.raises(UnknownNameError, match="did you mean 'shear'"):
        dataset.shifts(("sheer",))


def test_fmnist_c_is_one_shift(data):
    (data / "fmnist-c").mkdir()
    np.save(data / "fmnist-c" / "fmnist-c-test.npy", grey(3))
    np.save(data / "fmnist-c" / "fmnist-c-test-labels.npy", LABELS)
    assert CATALOGUE["fmnist-c"].shifts() == (Shift("fmnist-c"),)
    check_pixels(open_shift("fmnist-c").load([1], AS_IS), grey(3)[[1]])
    np.save(data / "fmnist-c" / "fmnist-c-test.npy", grey(3) / 255)
    with pytest.raises(BadInputError, match="must hold grey uint8 images"):
        open_shift("fmnist-c")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "fashion-mnist-c"])
def test_prepare_puts_the_files_where_they_are_read(name):
    files = files_of(CATALOGUE[name])
    assert {f"{one.into}/{one.file}" for one in files.downloads} == set(files.tree)
    assert len(files.downloads) == 4
    assert all(one.into.partition("/")[0] == files.folders[0] for one in files.downloads)


def test_the_family_is_read_from_real_files(real_data, monkeypatch):
    monkeypatch.setenv("TTA_BENCH_DATA", str(real_data))
    for name in FOLDERS:
        test, train = open_shift(name), CATALOGUE[name].source_split()
        assert (len(test), len(train)) == (10000, 60000)
        counts = np.bincount(test.labels)
        # Digits are nearly balanced, clothes exactly.
        assert counts.min() > 850
        assert name == "mnist" or set(counts) == {1000}
        pixels = test.load(range(200), AS_IS)
        assert pixels[:, :, :2].sum() == pixels[..., -2:].sum() == 0
        assert 20 < pixels.float().mean() < 90
    corrupted = open_shift("fashion-mnist-c", "contrast", 5).load(range(200), AS_IS)
    assert corrupted.float().std() < pixels.float().std() / 2
