# SPDX-License-Identifier: Apache-2.0
"""Inputs that are decoded once: the same bits, each image once, and no harm where nothing can be kept."""

import numpy as np
import pytest
import torch

from tta_bench.data.images import decoded
from tta_bench.data.images.decoded import DecodedOnce
from tta_bench.data.images.preprocess import Preprocess

SIZE = (4, 6)


class Counted:
    """Ten images of which every decoding is counted."""

    def __init__(self):
        self.labels, self.ids, self.data_hash = np.zeros(10), [str(i) for i in range(10)], "ten"
        self.pixels = torch.randint(0, 256, (10, 3, *SIZE), dtype=torch.uint8)
        self.asked = []

    def __len__(self):
        return 10

    def load(self, positions, preprocess):
        assert preprocess.size == SIZE
        self.asked += positions
        return self.pixels[list(positions)]


@pytest.fixture
def images():
    return Counted()


ASKED = ([3, 1, 3], [1, 7], [0, 3, 9])


def test_every_image_is_decoded_once_and_comes_back_as_it_was(images):
    once = DecodedOnce(images, Preprocess(SIZE))
    for positions in ASKED:
        assert torch.equal(once.load(positions), images.pixels[positions])
    assert images.asked == [3, 1, 7, 0, 9]


def test_what_comes_back_can_be_written_to_and_changes_nothing(images):
    once = DecodedOnce(images, Preprocess(SIZE))
    once.load([2])
    once.load([2]).zero_()
    assert torch.equal(once.load([2]), images.pixels[[2]])


def test_above_its_size_the_file_keeps_no_more(images, monkeypatch):
    monkeypatch.setattr(decoded, "MOST_BYTES", 2 * 3 * 4 * 6)
    once = DecodedOnce(images, Preprocess(SIZE))
    for positions in ASKED:
        assert torch.equal(once.load(positions), images.pixels[positions])
    assert images.asked == [3, 1, 7, 0, 9]
    once.load([0, 3])
    assert images.asked[5:] == [0]


def test_where_nothing_can_be_written_every_image_is_decoded_again(images, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TTA_BENCH_CACHE", str(tmp_path / "file"))
    once = DecodedOnce(images, Preprocess(SIZE))
    for positions in ASKED:
        assert torch.equal(once.load(positions), images.pixels[positions])
    assert len(images.asked) > 5


def test_a_disk_that_fills_up_loses_no_image(images, monkeypatch):
    once, room = DecodedOnce(images, Preprocess(SIZE)), [2]

    class Full:
        def __init__(self, file):
            self.seek, self.read, self.real = file.seek, file.read, file

        def write(self, data):
            room[0] -= 1
            if room[0] < 0:
                raise OSError(28, "No space left on device")
            return self.real.write(data)

    monkeypatch.setattr(once, "_file", Full(once._file))
    for positions in ASKED:
        assert torch.equal(once.load(positions), images.pixels[positions])
    assert images.asked == [3, 1, 7, 1, 0, 3, 9]


def test_the_file_goes_with_the_process(images, cache):
    once = DecodedOnce(images, Preprocess(SIZE))
    once.load([0])
    assert not list(cache.iterdir())
