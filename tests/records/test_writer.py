# SPDX-License-Identifier: Apache-2.0
"""A cell is written in parts, refuses what does not fit, and resumes behind what is intact."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tta_bench.errors import StoreError
from tta_bench.records.process import born
from tta_bench.records.schema import REQUIRED_COLUMNS
from tta_bench.records.sink import Sink
from tta_bench.records.store import Store

from .synthetic import manifest, put_cell, records


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path).open(create=True)


def batches(sizes):
    start = 0
    for index, size in enumerate(sizes):
        yield records(size, start=start, seed=index)
        start += size


def parts(tmp_path):
    return sorted(path.name for path in tmp_path.glob("cells/c/part-*"))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_part_is_written_after_so_many_rows(store, tmp_path):
    writer = store.writer("c", resume=False, flush_rows=100, flush_seconds=1e9)
    for expected, batch in zip([0, 1, 1, 2], batches([60, 60, 99, 1]), strict=True):
        writer.append(batch)
        assert len(parts(tmp_path)) == expected
    assert store.rows_done("c") == 220


def test_a_part_is_written_after_so_many_seconds(store, tmp_path):
    clock = Clock()
    writer = store.writer("c", resume=False, clock=clock)
    for seconds, expected in ((1.0, 0), (4.9, 0), (5.0, 1), (9.9, 1), (10.0, 2)):
        clock.now = seconds
        writer.append(records(2, start=writer.rows))
        assert len(parts(tmp_path)) == expected, seconds
    writer.append(records(2, start=writer.rows))
    writer.close()
    assert store.rows_done("c") == 12


def test_leaving_the_context_keeps_the_rows_even_after_an_error(store):
    def fail():
        with store.writer("c", resume=False) as writer:
            writer.append(records(7))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.rows_done("c") == 7
    assert store.manifest("c") is None


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 40))
def test_the_split_into_parts_makes_no_difference(tmp_path_factory, sizes, flush_rows):
    store = Store(tmp_path_factory.mktemp("store")).open(create=True)
    for cell, rows in (("c", flush_rows), ("whole", 10**9)):
        writer = store.writer(cell, resume=False, flush_rows=rows)
        for batch in batches(sizes):
            writer.append({**batch, "cell": "c"})
        before = None if rows == 10**9 else store.read(cell) if store.rows_done(cell) else None
        writer.finish(manifest(cell))
        if before is not None:
            assert store.read(cell).slice(0, before.num_rows).to_pylist() == before.to_pylist()
    assert store.read("c").to_pylist() == store.read("whole").to_pylist()
    assert store.manifest("c").images == sum(sizes)


def test_resuming_continues_and_starting_anew_forgets(store):
    store.writer("c", resume=False, flush_rows=1).append(records(10))
    writer = store.writer("c", resume=True)
    assert writer.rows == 10
    writer.append(records(5, start=10))
    assert writer.finish(manifest("c")).images == 15
    assert store.read("c").column("position").to_pylist() == list(range(15))
    assert store.writer("c", resume=True).rows == 15
    assert store.writer("c", resume=False).rows == 0
    assert store.rows_done("c") == 0


@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "foreign"])
def test_a_damaged_part_and_all_behind_it_are_dropped(store, tmp_path, damage):
    writer = store.writer("c", resume=False, flush_rows=1)
    for batch in batches([50] * 4):
        writer.append(batch)
    victim = tmp_path / "cells/c/part-00002.parquet"
    content = victim.read_bytes()
    damages = {"cut": content[:-20], "empty": b"", "foreign": b"PAR1 not really PAR1"}
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(damages[damage])
    assert store.rows_done("c") == 100
    assert store.read("c").num_rows == 100
    resumed = store.writer("c", resume=True)
    assert resumed.rows == 100
    assert parts(tmp_path) == ["part-00000.parquet", "part-00001.parquet"]
    resumed.append(records(50, start=100))
    resumed.finish(manifest("c"))
    assert store.read("c").column("position").to_pylist() == list(range(150))


def test_a_flipped_byte_is_found_or_harmless(store, tmp_path):
    store.writer("c", resume=False, flush_rows=1).append(records(50))
    whole, part = store.read("c"), tmp_path / "cells/c/part-00000.parquet"
    content, found = part.read_bytes(), 0
    for place in range(0, len(content), 41):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        part.write_bytes(bytes(damaged))
        if store.rows_done("c"):
            assert store.read("c").equals(whole), place
        else:
            found += 1
    assert found > len(content) / 41 / 2


def test_every_required_column_is_required(store):
    writer = store.writer("c", resume=False)
    for name in REQUIRED_COLUMNS - {"cell", "image_id"}:
        batch = records(3)
        del batch[name]
        with pytest.raises(StoreError, match=f"missing \\['{name}'\\]"):
            writer.append(batch)
        with pytest.raises(StoreError, match=f"column {name} should have a value"):
            writer.append({**records(3), name: None})
    assert writer.rows == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"extra": [1, 2, 3]}, "unknown \\['extra'\\]"),
        ({"label": [1, 2]}, "column label should have 3 values.*got 2"),
        ({"label": ["cat", "dog", "cup"]}, "column label should hold int32"),
        ({"label": [1, 2, 2**40]}, "column label should hold int32"),
        ({"prediction": [0.5, 1.0, 2.0]}, "column prediction should hold int32"),
        ({"position": [0, 2, 1]}, "positions of cell c should grow from 0"),
        ({"position": [0, 0, 1]}, "positions of cell c should grow from 0"),
        ({"position": [-1, 0, 1]}, "positions of cell c should grow from 0"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_whole(store, change, words):
    writer = store.writer("c", resume=False)
    with pytest.raises(StoreError, match=words):
        writer.append({**records(3), **change})
    assert writer.rows == 0


def test_positions_go_on_growing_across_batches_and_resumes(store):
    writer = store.writer("c", resume=False, flush_rows=1)
    writer.append(records(3))
    for again in (writer, store.writer("c", resume=True)):
        with pytest.raises(StoreError, match="grow from 3 on"):
            again.append(records(3, start=2))
    again.append(records(3, start=3))
    again.close()
    assert store.rows_done("c") == 6


def test_an_empty_batch_and_an_empty_cell_are_fine(store):
    writer = store.writer("c", resume=False)
    writer.append(records(0))
    assert writer.finish(manifest("c")).images == 0
    assert store.read("c").num_rows == 0


def test_short_top5_lists_and_scalars_of_numpy_are_taken(store):
    batch = {**records(2), "top5": np.array([[1, 0], [0, 1]]), "seed": np.int64(2**40), "warmup": np.True_}
    put_cell(store, manifest("c"), batch)
    table = store.read("c")
    assert table.column("top5").to_pylist() == [[1, 0], [0, 1]]
    assert table.column("seed").to_pylist() == [2**40, 2**40]
    assert table.column("warmup").to_pylist() == [True, True]


def test_finish_refuses_the_manifest_of_another_cell(store):
    writer = store.writer("c", resume=False)
    with pytest.raises(StoreError, match="manifest should be of cell c, got one of d"):
        writer.finish(manifest("d"))


def test_two_writers_of_one_cell_do_not_mix_their_rows(store, tmp_path):
    first = store.writer("c", resume=False, flush_rows=1)
    first.append(records(5))
    second = store.writer("c", resume=False, flush_rows=1)
    second.append(records(5))
    with pytest.raises(StoreError, match=r"cell c in .* was taken over by process"):
        first.append(records(5, start=5))
    second.append(records(5, start=5))
    assert second.finish(manifest("c")).images == 10


@pytest.mark.parametrize("damage", ["gone", "torn", "short", "foreign"])
def test_a_cell_with_missing_rows_never_ends_as_complete(store, tmp_path, damage):
    store.write_manifest(manifest("c"))
    writer = store.writer("c", resume=False, flush_rows=10)
    for batch in batches([10, 10, 10]):
        writer.append(batch)
    path = tmp_path / "cells/c/part-00001.parquet"
    if damage == "gone":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:50])
    else:
        other = store.writer("d", resume=False, flush_rows=1)
        other.append(records(9, start=10) if damage == "short" else records(10, start=11))
        path.write_bytes((tmp_path / "cells/d/part-00000.parquet").read_bytes())
    with pytest.raises(StoreError, match=r"cell c in .*; run the same command again"):
        writer.finish(manifest("c"))
    assert store.manifest("c").status == "running"
    assert not (tmp_path / "cells/c/records.parquet").exists()


def owner(tmp_path, **changes):
    path = tmp_path / "cells/c/owner.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_cell_that_another_process_writes_is_refused(store, tmp_path):
    store.writer("c", resume=False).append(records(5))
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        owner(tmp_path, pid=other.pid, born=born(other.pid))
        for begin in (
            lambda: store.writer("c", resume=True),
            lambda: Sink(store).begin(manifest("c"), rows=1),
        ):
            with pytest.raises(
                StoreError, match=f"is being written by process {other.pid} since 2"
            ) as caught:
                begin()
            assert "\n" not in str(caught.value)
        owner(tmp_path, born="1")  # a process of today under an old number
        store.writer("c", resume=True)
    finally:
        other.communicate(b"\n")
    owner(tmp_path, pid=other.pid)
    assert store.writer("c", resume=True).rows == 0
    owner(tmp_path, pid=1, host="elsewhere")
    store.writer("c", resume=True).finish(manifest("c"))
    assert not (tmp_path / "cells/c/owner.json").exists()


def test_a_failed_write_leaves_nothing_behind(store, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store._files._fs, "mv", full)
    with pytest.raises(StoreError, match="No space left on device"):
        store.write_manifest(manifest("c"))
    assert list((tmp_path / "cells/c").iterdir()) == []
