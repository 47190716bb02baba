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
    for count, shift in zip(counts, dict.fromkeys(s for batch in batches for s in batch.shifts), strict=True):
        assert sum(batch.shifts.count(shift) for batch in batches) == count
    assert all(len(set(batch.shifts)) == 1 for batch in batches)
    assert [batch.shifts[0] for batch in batches if batch.first] == list(
        dict.fromkeys(b.shifts[0] for b in batches)
    )


def mixed(counts, batch_size, *, spans, seed=0):
    """A stream whose images come from its shifts in random turns."""
    turns = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = stream_of(counts, batch_size).parts
    return Stream(parts, batch_size, AS_IS, turns=turns, spans=spans)


counts_of = st.lists(st.integers(1, 30), min_size=1, max_size=3)


@given(counts_of, st.integers(1, 9), st.booleans(), st.booleans(), st.data())
def test_a_stream_resumes_at_every_border_as_if_it_had_not_stopped(counts, batch_size, turns, spans, data):
    stream = mixed(counts, batch_size, spans=spans) if turns else stream_of(counts, batch_size)
    whole = list(stream.from_row())
    done = data.draw(st.integers(0, len(stream)))
    border = stream.border(done)
    starts = [batch.rows.start for batch in whole]
    assert border == (len(stream) if done == len(stream) else max(row for row in starts if row <= done))
    rest, kept = list(stream.from_row(border)), [batch for batch in whole if batch.rows.start >= border]
    for one, other in zip(rest, kept, strict=True):
        assert one[1:] == other[1:]
        assert torch.equal(one.images, other.images)


@given(counts_of, st.integers(1, 9), st.booleans(), st.integers(0, 3))
def test_batches_may_span_shifts(counts, batch_size, spans, seed):
    stream = mixed(counts, batch_size, spans=spans, seed=seed)
    batches, labels = list(stream.from_row()), stream.labels()
    assert [row for batch in batches for row in batch.rows] == list(range(sum(counts)))
    assert [batch.number for batch in batches] == list(range(stream.batches))
    expected = {part.shift: iter(part.positions) for part in stream.parts}
    for batch in batches:
        assert spans or len(set(batch.shifts)) == 1
        for row, name, shift, image in zip(
            batch.rows, batch.ids, batch.shifts, batch.images[:, 0, 0, 0], strict=True
        ):
            position = int(next(expected[shift]))
            assert (name, int(image), labels[row]) == (f"image-{position}", position, position % 7)
    if spans:
        assert [len(batch.rows) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)


def test_the_order_hash_tells_orders_and_shifts_apart():
    hashes = {
        stream.order_hash()
        for stream in (
            stream_of([5, 5], 3), stream_of([5, 5], 3, seed=1), stream_of([5, 4], 3),
            mixed([5, 5], 3, spans=True, seed=1), mixed([5, 5], 3, spans=True, seed=2),
        )
    }  # fmt: skip
    assert len(hashes) == 5
    assert stream_of([5, 5], 3).order_hash() == stream_of([5, 5], 7).order_hash()


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
    with pytest.raises(BadInputError, match="limit asks for 11 images per shift, but only 10"):
        choose(Numbered(10), "first-11", 0)
