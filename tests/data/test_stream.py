# SPDX-License-Identifier: Apache-2.0
"""Which images a stream shows, and in which order."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tta_bench.data.dataset import Shift
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.stream import Part, Stream, choose
from tta_bench.errors import BadInputError

AS_IS = Preprocess((4, 4))


class Numbered:
    """Images whose pixels hold their own position."""

    data_hash = "numbered"

    def __init__(self, count):
        self.ids = [f"image-{i}" for i in range(count)]
        self.labels = np.arange(count) % 7

    def __len__(self):
        return len(self.ids)

    def load(self, positions, preprocess):
        return torch.stack(
            [torch.full((3, 4, 4), position % 256, dtype=torch.uint8) for position in positions]
        )


def stream_of(counts, batch_size, seed=0):
    parts = []
    for index, count in enumerate(counts):
        images = Numbered(count)
        parts.append(Part(Shift("numbered", "fog", index + 1), images, choose(images, "full", seed)))
    return Stream(parts, batch_size, AS_IS)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(1, 17), st.integers(0, 3))
def test_every_image_comes_once_with_its_label_and_pixels(counts, batch_size, seed):
    stream = stream_of(counts, batch_size, seed)
    batches = list(stream.from_row())
    assert [row for batch in batches for row in batch.rows] == list(range(len(stream)))
    assert len(batches) == stream.batches
    labels = stream.labels()
    for batch in batches:
        positions = [int(name.partition("-")[2]) for name in batch.ids]
        assert batch.images[:, 0, 0, 0].tolist() == positions
        assert labels[batch.rows.start : batch.rows.stop].tolist() == [position % 7 for position in positions]
    for count, shift in zip(counts, dict.fromkeys(batch.shift for batch in batches), strict=True):
        assert sum(len(batch.rows) for batch in batches if batch.shift == shift) == count
    assert [batch.shift for batch in batches if batch.first] == list(dict.fromkeys(b.shift for b in batches))


@given(st.integers(1, 40), st.integers(1, 9), st.data())
def test_a_stream_goes_on_where_a_batch_begins(count, batch_size, data):
    stream = stream_of([count], batch_size)
    whole = list(stream.from_row())
    index = data.draw(st.integers(0, len(whole) - 1))
    rest = list(stream.from_row(whole[index].rows.start))
    assert [batch.ids for batch in rest] == [batch.ids for batch in whole[index:]]


def test_the_order_depends_on_the_seed_and_the_membership_does_not():
    images = Numbered(100)
    first, second = choose(images, "first-30", 0), choose(images, "first-30", 1)
    assert first.tolist() != second.tolist()
    assert sorted(first) == sorted(second) == list(range(30))
    seeded = choose(images, "seeded-30", 0)
    assert sorted(seeded) == sorted(choose(images, "seeded-30", 5))
    assert sorted(seeded) != list(range(30))


def test_a_larger_dataset_keeps_the_relative_order():
    small = choose(Numbered(50), "full", 3)
    large = choose(Numbered(80), "full", 3)
    assert [position for position in large if position < 50] == small.tolist()


def test_more_images_than_there_are_is_refused():
    with pytest.raises(BadInputError, match="asks for 11 images per shift, but only 10"):
        choose(Numbered(10), "first-11", 0)
