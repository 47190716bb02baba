# SPDX-License-Identifier: Apache-2.0
"""CIFAR in its official files: the right pixels with the right labels, or a sentence."""

import pickle

import numpy as np
import pytest

from tta_bench.data.acquire.check import check
from tta_bench.data.catalogue.declare import files_of
from tta_bench.data.dataset import OpenRequest
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import BadInputError

from .trees import CATALOGUE, pixels, plant_arrays

NAMES = ("cifar10", "cifar100", "cifar10-c", "cifar100-c", "cifar10.1")
AS_IS = Preprocess((32, 32))


def open_shift(name, shift):
    return CATALOGUE[name].open(OpenRequest(shift))


@pytest.mark.parametrize("name", NAMES)
def test_pixels_and_labels(name, data):
    shift, images, labels = plant_arrays(name, data)
    found = open_shift(name, shift)
    assert found.labels.tolist() == labels.tolist()
    loaded = found.load([2, 0], AS_IS)
    assert (loaded.permute(0, 2, 3, 1).numpy() == images[[2, 0]]).all()
    assert len(set(found.ids)) == len(found) == 4


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_name_the_path_and_the_command(name, data):
    shift = CATALOGUE[name].shifts()[0]
    with pytest.raises(BadInputError, match=f"tta-bench data prepare {name}") as caught:
        open_shift(name, shift)
    assert str(data / files_of(CATALOGUE[name]).folders[0]) in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_an_extra_folder_level_is_named(name, data):
    shift, _, _ = plant_arrays(name, data)
    folder = next(data.iterdir())
    folder.rename(data / "moved")
    folder.mkdir()
    (data / "moved").rename(folder / "inside")
    with pytest.raises(BadInputError, match="one folder too deep"):
        open_shift(name, shift)


@pytest.mark.parametrize("name", NAMES)
def test_check_counts(name, data):
    shift, _, labels = plant_arrays(name, data)
    found = next(one for one in check(CATALOGUE[name], files_of(CATALOGUE[name])) if one.shift == shift)
    assert (found.survey.images, found.survey.classes) == (4, len(set(labels.tolist())))
    assert any("classes" in sentence or "class" in sentence for sentence in found.problems)


def test_every_severity_is_its_own_block(data):
    shift, _, _ = plant_arrays("cifar10-c", data)
    blocks = np.load(data / "CIFAR-10-C" / "frost.npy")
    hashes = set()
    for severity in range(1, 6):
        found = open_shift("cifar10-c", shift._replace(severity=severity))
        first = found.load([0], AS_IS)[0].permute(1, 2, 0).numpy()
        assert (first == blocks[(severity - 1) * 4]).all()
        hashes.add(found.data_hash)
    assert len(hashes) == 5


def test_one_pixel_changes_the_hash(data):
    shift, _, _ = plant_arrays("cifar10-c", data)
    before = open_shift("cifar10-c", shift).data_hash
    path = data / "CIFAR-10-C" / "frost.npy"
    blocks = np.load(path)
    blocks[13, 5, 5, 1] ^= 1
    np.save(path, blocks)
    assert open_shift("cifar10-c", shift).data_hash != before


def test_labels_of_another_dataset_are_refused(data):
    shift, _, _ = plant_arrays("cifar10-c", data)
    np.save(data / "CIFAR-10-C" / "labels.npy", np.tile([99, 0, 1, 2], 5).astype(np.uint8))
    with pytest.raises(BadInputError, match=r"must be 0 to 9, got 0 to 99"):
        open_shift("cifar10-c", shift)


def test_other_shapes_are_refused(data):
    shift, _, _ = plant_arrays("cifar10-c", data)
    path = data / "CIFAR-10-C" / "frost.npy"
    np.save(path, pixels(20, 0).astype(np.float32))
    with pytest.raises(BadInputError, match="must hold uint8 images"):
        open_shift("cifar10-c", shift)
    np.save(path, pixels(19, 0))
    with pytest.raises(BadInputError, match="5 blocks"):
        open_shift("cifar10-c", shift)
    path.write_bytes(b"<html>")
    with pytest.raises(BadInputError, match="must be a NumPy file"):
        open_shift("cifar10-c", shift)


class Hostile:
    def __reduce__(self):
        return print, ("run by the pickle",)


def test_a_pickle_that_would_run_something_is_refused(data, capsys):
    shift, _, _ = plant_arrays("cifar10", data)
    path = data / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps({"data": Hostile(), "labels": [0]}))
    with pytest.raises(BadInputError, match=r"builtins\.print"):
        open_shift("cifar10", shift)
    assert "run by the pickle" not in capsys.readouterr().out
    path.write_bytes(pickle.dumps({"data": [1]}))
    with pytest.raises(BadInputError, match="must hold 'data' and 'labels'"):
        open_shift("cifar10", shift)
    path.write_bytes(b"garbage")
    with pytest.raises(BadInputError, match="must be a pickled CIFAR batch"):
        open_shift("cifar10", shift)


def test_source_images_come_from_the_training_batches(data):
    folder = data / "cifar-10-batches-py"
    folder.mkdir()
    images = pixels(10, 3)
    for number in range(1, 6):
        part = images[(number - 1) * 2 : number * 2]
        batch = {"data": part.transpose(0, 3, 1, 2).reshape(2, 3072), "labels": [number, 9 - number]}
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(batch))
    source = CATALOGUE["cifar10-c"].source_split()
    assert source.labels.tolist() == [1, 8, 2, 7, 3, 6, 4, 5, 5, 4]
    assert (source.load([9], AS_IS)[0].permute(1, 2, 0).numpy() == images[9]).all()


@pytest.mark.parametrize(("name", "public"), [("cifar10-c", "cifar10"), ("cifar100-c", "cifar100")])
def test_missing_training_images_name_a_dataset_that_can_be_prepared(data, name, public):
    with pytest.raises(BadInputError, match=rf"`tta-bench data prepare {public}`"):
        CATALOGUE[name].source_split()
