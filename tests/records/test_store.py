# SPDX-License-Identifier: Apache-2.0
"""A store finds what was put into it, over every kind of URL, and knows what is not its own."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tta_bench.errors import StoreError
from tta_bench.records.schema import RECORD_SCHEMA
from tta_bench.records.store import MARKER, Store

from .synthetic import manifest, put_cell, records


@pytest.fixture(params=["path", "file", "memory"])
def store(request, tmp_path):
    if request.param == "memory":
        name = f"memory://{uuid.uuid4().hex}/runs"
        yield Store(name).open(create=True)
        MemoryFileSystem().rm(name.removeprefix("memory://").split("/")[0], recursive=True)
    else:
        prefix = "file://" if request.param == "file" else ""
        yield Store(f"{prefix}{tmp_path}/new/runs").open(create=True)


def test_records_come_back_as_they_were(store):
    columns = records(60)
    put_cell(store, manifest("c1"), columns)
    table = store.read("c1")
    assert table.schema.equals(RECORD_SCHEMA)
    assert table.column("cell").to_pylist() == ["c1"] * 60
    for name, values in columns.items():
        expected = values.tolist() if isinstance(values, np.ndarray) else values
        if isinstance(values, (str, int)):
            expected = [values] * 60
        assert table.column(name).to_pylist() == expected, name
    assert table.column("predict_ms").null_count == 60


def test_columns_are_read_alone_in_the_order_asked_for(store):
    put_cell(store, manifest("c1"), records(10))
    assert store.read("c1", ["seed", "label"]).column_names == ["seed", "label"]


def test_manifests_are_sorted_and_status_is_final(store):
    for name in ("b", "a", "c"):
        put_cell(store, manifest(name), records(5))
    store.write_manifest(manifest("d", status="failed", error="Traceback"))
    assert [(found.id, found.status, found.images) for found in store.manifests()] == [
        ("a", "complete", 5),
        ("b", "complete", 5),
        ("c", "complete", 5),
        ("d", "failed", 0),
    ]
    assert store.manifest("nothing") is None


def test_a_collapsed_cell_keeps_its_status(store):
    assert put_cell(store, manifest("c", status="collapsed"), records(5)).status == "collapsed"


def test_scores_are_kept_by_key(store):
    assert store.scores("k") is None
    table = pa.table({"prediction": [1, 2], "logits": [[0.5, 1.0], [2.0, 3.0]]})
    store.put_scores("k", table)
    store.put_scores("k", table)
    assert store.scores("k").equals(table)


def test_remove_takes_the_whole_cell_and_no_other(store):
    for name in ("a", "b"):
        put_cell(store, manifest(name), records(5))
    store.remove("a")
    store.remove("a")
    assert [found.id for found in store.manifests()] == ["b"]
    assert store.rows_done("a") == 0
    with pytest.raises(StoreError, match="no records yet"):
        store.read("a")


def test_the_store_opens_again_to_read_and_to_write(store):
    put_cell(store, manifest("a"), records(5))
    assert Store(store.url).open(create=False).rows_done("a") == 5
    assert Store(store.url).open(create=True).rows_done("a") == 5


def test_nothing_but_whole_files_is_left(tmp_path):
    store = Store(str(tmp_path)).open(create=True)
    put_cell(store, manifest("a"), records(5))
    store.put_scores("k", store.read("a"))
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["cells/a/manifest.json", "cells/a/records.parquet", "scores/k.parquet", "tta-bench.json"]


def refusal(url, create):
    with pytest.raises(StoreError) as caught:
        Store(url).open(create=create)
    return str(caught.value)


def test_a_missing_folder_is_named_when_reading(tmp_path):
    assert str(tmp_path / "gone") in refusal(tmp_path / "gone", False)
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("create", [True, False])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, create):
    (tmp_path / "thesis.tex").write_text("dear")
    message = refusal(tmp_path, create)
    assert "thesis.tex" in message
    assert "choose another folder" in message
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("create", [True, False])
def test_a_newer_store_is_refused_and_left_alone(tmp_path, create):
    marker = tmp_path / MARKER
    marker.write_text(json.dumps({"schema_version": 99}))
    assert "newer tta-bench (schema 99" in refusal(tmp_path, create)
    assert json.loads(marker.read_text()) == {"schema_version": 99}


@pytest.mark.parametrize("create", [True, False])
def test_a_file_is_no_folder(tmp_path, create):
    (tmp_path / "file").write_text("x")
    assert "is a file" in refusal(tmp_path / "file", create)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    assert "choose another" in refusal(tmp_path / "file" / "runs", True)


def test_a_folder_that_turned_read_only_is_refused(tmp_path, monkeypatch):
    store = Store(tmp_path).open(create=True)

    def deny(_path, mode="rb", **_options):
        assert mode == "wb"
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store._files._fs, "open", deny)
    monkeypatch.setattr(store._files._fs, "cat_file", lambda path: Path(path).read_bytes())
    with pytest.raises(StoreError, match=r"should be writable and is not.*Permission denied.*output="):
        store.open(create=True)
    assert store.open(create=False) is store


def test_an_unknown_protocol_is_refused():
    with pytest.raises(StoreError, match="nosuch://x"):
        Store("nosuch://x")


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "-x", "a b", "a\n"])
def test_names_cannot_leave_the_store(tmp_path, name):
    store = Store(tmp_path).open(create=True)
    for call in (store.read, store.remove, store.rows_done, store.manifest, store.scores):
        with pytest.raises(StoreError, match="should be of letters"):
            call(name)
    with pytest.raises(StoreError, match="should be of letters"):
        store.writer(name, resume=False)


def test_a_broken_manifest_is_named(tmp_path):
    store = Store(tmp_path).open(create=True)
    put_cell(store, manifest("a"), records(5))
    (tmp_path / "cells/a/manifest.json").write_bytes(b'{"schema')
    with pytest.raises(StoreError, match=r"cells/a/manifest\.json"):
        store.manifests()


def test_damaged_records_are_named_and_damaged_scores_made_again(tmp_path):
    store = Store(tmp_path).open(create=True)
    put_cell(store, manifest("a"), records(5))
    store.put_scores("k", store.read("a"))
    for path in (tmp_path / "cells/a/records.parquet", tmp_path / "scores/k.parquet"):
        path.write_bytes(path.read_bytes()[:-9])
    assert store.scores("k") is None
    assert store.rows_done("a") == 0
    with pytest.raises(StoreError, match=r"cell a .*in .* are damaged.*run the same command again"):
        store.read("a")
