# SPDX-License-Identifier: Apache-2.0
"""Damage is named, set aside and never read as numbers."""

import json
import os
import random
import stat
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tta_bench.errors import Caution, DamagedError, StoreError
from tta_bench.records.files import Files
from tta_bench.records.frame import read_frame
from tta_bench.records.health import sound_manifest, usable
from tta_bench.records.parts import intact_parts
from tta_bench.records.process import temporary_name
from tta_bench.records.store import Store
from tta_bench.reports.leaderboard import leaderboard, write_csv

from .synthetic import manifest, put_cell, records


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs").open(create=True)


def derived(**changes):
    """A manifest whose id follows from what it says."""
    made = manifest("x", **changes)
    return replace(made, id=made.cell.id(made.protocol))


def put(store, **changes):
    made = derived(**changes)
    put_cell(store, made, records(100))
    return made.id, store._files


def records_path(tmp_path, cell):
    return tmp_path / "runs/cells" / cell / "records.parquet"


def test_every_flipped_bit_of_the_records_is_found(store, tmp_path):
    cell, _ = put(store)
    path, draw = records_path(tmp_path, cell), random.Random(0)
    whole = path.read_bytes()
    for _ in range(60):
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        with pytest.raises(StoreError):
            sound_manifest(store, cell)
    path.write_bytes(whole)
    assert sound_manifest(store, cell).id == cell


def test_pages_are_checked_whenever_records_are_read(store, tmp_path):
    cell, _ = put(store)
    path, draw = records_path(tmp_path, cell), random.Random(0)
    whole, table = path.read_bytes(), store.read(cell)
    for _ in range(200):
        content = bytearray(whole)
        content[draw.randrange(4, len(content) // 2)] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        with suppress(DamagedError):
            assert store.read(cell).equals(table)


@pytest.mark.parametrize("change", ["swapped", "doubled", "edited", "short", "foreign"])
def test_a_rewritten_file_of_records_is_found(store, tmp_path, change):
    cell, files = put(store)
    table, path = store.read(cell), records_path(tmp_path, cell)
    order = {"swapped": [1, 0, *range(2, 100)], "doubled": [0, *range(99)], "short": list(range(99))}
    new = table.take(order[change]) if change in order else table
    if change == "foreign":
        new = new.set_column(0, new.schema.field(0), pa.array(["other"] * 100).dictionary_encode())
    if change == "edited":
        place = new.column_names.index("prediction")
        new = new.set_column(place, new.schema.field(place), new.column("label"))
    files.write_table(f"cells/{cell}/records.parquet", new)
    with pytest.raises(DamagedError, match="not the file that was written"):
        sound_manifest(store, cell)
    if change != "edited":  # what a manifest without the hash still tells
        kept = store.manifest(cell)
        store.write_manifest(replace(kept, records_sha256=""))
        with pytest.raises(DamagedError):
            sound_manifest(store, cell)
    assert pq.read_table(path).num_rows == new.num_rows


@pytest.mark.parametrize("change", ["hyperparameter", "protocol", "id", "folder"])
def test_a_manifest_that_does_not_follow_from_its_id_is_found(store, tmp_path, change):
    cell, _ = put(store)
    path = tmp_path / "runs/cells" / cell / "manifest.json"
    data = json.loads(path.read_text())
    if change == "hyperparameter":
        data["cell"]["hyperparameters"]["lr"] = 0.5
    elif change == "protocol":
        data["protocol"]["batch_size"] = 7
    elif change == "id":
        data["id"] = "0" * 20
    path.write_text(json.dumps(data))
    if change == "folder":
        path.parent.rename(path.parent.with_name("f" * 20))
        cell = "f" * 20
    with pytest.raises(DamagedError, match="its manifest"):
        sound_manifest(store, cell)


def torn(path):
    path.write_bytes(path.read_bytes()[:40])


DAMAGES = {
    "records torn": lambda folder: torn(folder / "records.parquet"),
    "records gone": lambda folder: (folder / "records.parquet").unlink(),
    "manifest torn": lambda folder: torn(folder / "manifest.json"),
    "manifest gone": lambda folder: (folder / "manifest.json").unlink(),
    "manifest of text": lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
    "manifest of bad types": lambda folder: (folder / "manifest.json").write_text(
        '{"schema_version": 3, "id": 3}'
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cell_is_set_aside_and_left_out_of_tables(store, tmp_path, damage):
    bad, _ = put(store)
    good, _ = put(store, cell={"seed": 1})
    folder = tmp_path / "runs/cells" / bad
    DAMAGES[damage](folder)
    with pytest.warns(Caution, match=f"cell {bad} .* is damaged .* incomplete"):
        rows = leaderboard([store.url])
    assert [row.seeds for row in rows] == ["1"]
    with pytest.warns(Caution, match="incomplete"):
        assert len(read_frame(store.url)) == 100
    with pytest.warns(Caution, match=f"set aside as .*{bad}.damaged and is computed again"):
        assert usable(store, bad) is None
    assert folder.with_name(f"{bad}.damaged").is_dir()
    assert store.cells() == [good]
    put(store)
    assert usable(store, bad).status == "complete"
    DAMAGES[damage](folder)
    with pytest.warns(Caution, match=f"{bad}.damaged-2"):
        assert usable(store, bad) is None


def test_a_foreign_file_among_the_cells_harms_nothing(store, tmp_path):
    cell, _ = put(store)
    (tmp_path / "runs/cells/README").write_text("mine")
    assert len(leaderboard([store.url])) == 1
    assert usable(store, cell).id == cell


def test_a_torn_marker_is_written_again_by_a_run_and_named_by_a_reader(store, tmp_path):
    put(store)
    (tmp_path / "runs/tta-bench.json").write_text("{")
    with pytest.raises(StoreError, match="tta-bench run writes it again"):
        Store(store.url).open(create=False)
    Store(store.url).open(create=True)
    assert len(leaderboard([store.url])) == 1


def test_parts_with_a_gap_or_of_another_cell_are_not_resumed_from(store):
    for cell in ("c", "d"):
        with store.writer(cell, resume=False, flush_rows=10) as writer:
            for start in (0, 10, 20):
                writer.append(records(10, start=start))
    files: Files = store._files
    files.rename("cells/d/part-00002.parquet", "cells/d/part-00001.parquet")
    assert sum(part.rows for part in intact_parts(files, "d")) == 10
    files.rename("cells/c/part-00001.parquet", "cells/d/part-00001.parquet")
    assert sum(part.rows for part in intact_parts(files, "d")) == 10


def test_what_dead_processes_left_half_written_is_removed_and_nothing_else(store, tmp_path):
    cell, _ = put(store)
    code = "from tta_bench.records.process import temporary_name as t; print(t('manifest.json'))"
    dead = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    alive = temporary_name("manifest.json")
    folders = [tmp_path / "runs", tmp_path / "runs/cells" / cell]
    for folder in folders:
        for name in (dead, alive, ".tmp-notes"):
            (folder / name).write_text("")
    Store(store.url).open(create=False)
    assert all((folder / dead).exists() for folder in folders)
    Store(store.url).open(create=True)
    for folder in folders:
        assert not (folder / dead).exists()
        assert (folder / alive).exists()
        assert (folder / ".tmp-notes").exists()


def test_files_reach_the_disk_before_they_get_their_names(store, monkeypatch):
    events, fs = [], store._files._fs
    real_sync, real_move = os.fsync, fs.mv

    def sync(number):
        events.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")
        real_sync(number)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(fs, "mv", lambda *a, **k: (events.append("mv"), real_move(*a, **k)))
    put(store)
    assert len(events) > 3
    assert events == ["file", "mv", "folder"] * (len(events) // 3)


def test_a_leaderboard_is_replaced_whole_or_not_at_all(store, tmp_path, monkeypatch):
    put(store)
    path = tmp_path / "leaderboard.csv"
    write_csv(leaderboard([store.url]), path)
    before = path.read_bytes()

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="should be writable"):
        write_csv([], path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".tmp-")] == []
