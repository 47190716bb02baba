# SPDX-License-Identifier: Apache-2.0
"""Readers of plug-ins that give what they must not, each refused in one sentence."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tta_bench.data.dataset import Dataset, OpenRequest, Shift
from tta_bench.data.images.checked import checked, open_checked, split_checked
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.stream import Part, Stream, choose
from tta_bench.errors import BadInputError, PluginError

SIZE = Preprocess((8, 8), 8)
DATASET = Dataset(name="mine", title="", class_names=("a", "b", "c"), open=None)


class Reader:
    data_hash = "x"
    origin = "mine"

    def __init__(self, ids=("1", "2", "3"), labels=(0, 1, 2), count=None, made=None):
        self.ids, self.labels = list(ids), np.array(labels)
        self.count, self.made = len(self.ids) if count is None else count, made

    def __len__(self):
        return self.count

    def load(self, positions, preprocess):
        return torch.zeros(len(positions), 3, 8, 8, dtype=torch.uint8) if self.made is None else self.made


class Ahead(Reader):
    def batches(self, chunks, preprocess):
        return iter([self.load(chunk, preprocess) for chunk in chunks[: self.least]])

    least = 99


def through(reader):
    images = checked(reader, DATASET, Shift("mine"))
    stream = Stream([Part(Shift("mine"), images, choose(images, "full", 0))], 2, SIZE)
    return list(stream.from_row())


@pytest.mark.parametrize("kind", [Reader, Ahead])
def test_a_good_reader_passes_unchanged(kind):
    batches = through(kind())
    assert [len(batch.images) for batch in batches] == [2, 1]
    images = checked(kind(), DATASET, Shift("mine"))
    assert (images.origin, images.data_hash, len(images)) == ("mine", "x", 3)
    assert hasattr(images, "batches") == (kind is Ahead)
    assert getattr(images, "usable", None) is None


@pytest.mark.parametrize(
    ("reader", "sentence"),
    [
        (Reader(labels=(0, 1, 3)), "labels from 0 to 2, got 3"),
        (Reader(labels=(0, -1, 2)), "labels from 0 to 2, got -1"),
        (Reader(labels=(0, 1.5, 2)), r"whole numbers as labels, got float64 \(such as 0.0\)"),
        (Reader(labels=(0, np.nan, 2)), "whole numbers as labels, got float64"),
        (Reader(labels=("0", "1", "2")), "whole numbers as labels"),
        (Reader(labels=(True, False, True)), r"whole numbers as labels, got bool \(such as True\)"),
        (Reader(labels=(0, None, 2)), r"whole numbers as labels, got object \(such as None\)"),
        (Reader(labels=(0, 1)), r"one label per image \(3,\), got shape \(2,\)"),
        (Reader(labels=((0, 1), (1, 2), (0, 0))), r"got shape \(3, 2\)"),
        (Reader(ids=("1", "2", "1")), "distinct ids, got '1' 2 times"),
        (Reader(ids=("1", 2, "3")), r"texts as ids, got 2 \(int\)"),
        (Reader(ids=("1", None, "3")), "texts as ids, got None"),
        (Reader(ids=("1", "", "3")), "texts as ids, got ''"),
        (Reader(count=4), "one id per image, got 3 ids for 4 images"),
        (object(), "must have 'ids', got object"),
        (Reader(made=torch.zeros(2, 3, 8, 8)), r"uint8 images \(2, 3, 8, 8\).*got torch.float32"),
        (Reader(made=torch.zeros(2, 1, 8, 8, dtype=torch.uint8)), r"got torch.uint8 \(2, 1, 8, 8\)"),
        (Reader(made=torch.zeros(2, 3, 9, 8, dtype=torch.uint8)), r"got torch.uint8 \(2, 3, 9, 8\)"),
        (Reader(made=torch.zeros(2, 8, 8, 3, dtype=torch.uint8)), r"got torch.uint8 \(2, 8, 8, 3\)"),
        (Reader(made=torch.zeros(1, 3, 8, 8, dtype=torch.uint8)), r"got torch.uint8 \(1, 3, 8, 8\)"),
        (Reader(made=np.zeros((2, 3, 8, 8), np.uint8)), "got ndarray"),
        (Ahead(made=torch.zeros(2, 3, 8, 8)), "got torch.float32"),
    ],
)
def test_a_bad_reader_is_refused(reader, sentence):
    with pytest.raises(PluginError, match=sentence) as caught:
        through(reader)
    assert "the reader of mine" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_few_batches_are_told():
    reader = Ahead()
    reader.least = 1
    with pytest.raises(PluginError, match="must give 2 batches, got 1"):
        through(reader)


@pytest.mark.parametrize("kind", ["open", "split"])
def test_source_images_and_test_images_pass_the_same_door(kind):
    def read(make):
        if kind == "open":
            return open_checked(replace(DATASET, open=lambda request: make()), OpenRequest(Shift("mine")))
        return split_checked(replace(DATASET, source_split=make))

    what = "the reader of mine" if kind == "open" else "the reader of the source images of mine"
    assert read(Reader).labels.tolist() == [0, 1, 2]
    with pytest.raises(PluginError, match=f"^{what} must have labels from 0 to 2, got 7"):
        read(lambda: Reader(labels=(0, 1, 7)))
    with pytest.raises(PluginError, match=f"^{what} failed with KeyError: 'x'"):
        read(lambda: {}["x"])
    with pytest.raises(KeyboardInterrupt):
        read(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(BadInputError, match="fetch it"):
        read(lambda: (_ for _ in ()).throw(BadInputError("fetch it")))
