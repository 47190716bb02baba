# SPDX-License-Identifier: Apache-2.0
"""Records and manifests keep their form, and what is not theirs is refused in a sentence."""

from __future__ import annotations

import ast
import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tta_bench
from tta_bench.errors import StoreError
from tta_bench.records.schema import ADDED, CLOCK_COLUMNS, RECORD_SCHEMA, REQUIRED_COLUMNS
from tta_bench.records.store import Store
from tta_bench.spec import Cell, Protocol, digest
from tta_bench.spec.manifest import SCHEMA_VERSION, parse_manifest

from ..records.synthetic import manifest  # noqa: TID252  "tests" is no installed package

PACKAGE = Path(tta_bench.__file__).parent
OTHERS = {"spec", "parity", "data"}
"""Besides the owner: packages whose manifests are other files, those of golden vectors and of corrupted folders."""

COLUMNS = """cell image_id shift position label prediction confidence entropy top5 source_prediction source_confidence
teacher_prediction teacher_confidence zero_shot_prediction view_ms encode_ms adapt_ms predict_ms peak_mib cached
batch_size warmup reset seed"""


def test_the_columns_and_their_order_are_fixed():
    assert RECORD_SCHEMA.names == COLUMNS.split()
    assert RECORD_SCHEMA.field("seed").type == pa.int64()
    assert RECORD_SCHEMA.field("top5").type == pa.list_(pa.int32())
    nullable = {"teacher_prediction", "teacher_confidence", "peak_mib", *ADDED, *CLOCK_COLUMNS}
    assert set(RECORD_SCHEMA.names) - REQUIRED_COLUMNS == nullable


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.text(max_size=5), json_values, max_size=4),
    st.dictionaries(st.text(), json_values, max_size=4),
    st.none() | st.lists(st.integers(0, 9) | st.lists(st.integers(0, 9)).map(tuple), max_size=3).map(tuple),
)
def test_a_manifest_survives_the_file(hyperparameters, notes, mask):
    written = manifest(
        "abc", cell={"hyperparameters": hyperparameters}, notes={"of_method": notes}, protocol={"label_mask": mask}
    )  # fmt: skip
    assert parse_manifest(written.to_json(), "manifest.json") == written


def changed(**facts):
    return json.dumps(json.loads(manifest("abc").to_json()) | facts).encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", ["m.json", "damaged", "run the same command again"]),
        (b"[1]", ["m.json", "object", "list", "run the same command again"]),
        (b"{}", ["m.json", "schema_version", "None"]),
        (b'{"schema_version": true}', ["schema_version", "True"]),
        (b'{"schema_version": 0}', ["schema_version", "0"]),
        (b'{"schema_version": 3}', ["m.json", "id is required", "run the same command again"]),
        (changed(status="odd"), ["status must be running, complete", "got 'odd'"]),
        (changed(protocol={}), ["protocol.class_list is required"]),
        (changed(images="many"), ["images must be a whole number, got str"]),
        (changed(images=True), ["images must be a whole number, got bool"]),
        (changed(more=1), ["more is no fact of this schema"]),
        (changed(cell=[]), ["cell must be an object, got list"]),
    ],
)
def test_what_is_no_manifest_is_refused(content, words):
    with pytest.raises(StoreError) as caught:
        parse_manifest(content, "m.json")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_newer_schema_is_refused_with_the_way_out():
    with pytest.raises(StoreError) as caught:
        parse_manifest(changed(schema_version=SCHEMA_VERSION + 1), "m.json")
    assert str(caught.value) == (
        f"m.json was written by a newer tta-bench (schema {SCHEMA_VERSION + 1}, this one reads "
        f"{SCHEMA_VERSION}); upgrade with pip install -U tta-bench"
    )


@pytest.mark.parametrize("create", [True, False])
def test_an_old_run_folder_is_refused_in_one_sentence_that_says_what_to_do(tmp_path, create):
    (tmp_path / "tta-bench.json").write_text('{"schema_version": 1, "tool": "tta-bench"}', encoding="utf-8")
    with pytest.raises(
        StoreError, match=r"older tta-bench \(schema 1, this one reads 3\).* new folder with output="
    ):
        Store(str(tmp_path)).open(create=create)


def test_a_new_manifest_is_running_and_current():
    fresh = manifest("abc")
    assert (fresh.status, fresh.schema_version, fresh.images) == ("running", SCHEMA_VERSION, 0)
    assert replace(fresh, images=3).images == 3


def keyed(node):
    """Return what is looked up by a constant text: the subject of ``subject["x"]`` or ``subject.get("x")``."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return node.value if isinstance(node.slice.value, str) else None
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"
    if called and node.args and isinstance(node.args[0], ast.Constant):
        return node.func.value
    return None


def test_no_module_but_those_of_spec_reads_a_manifest_by_text_keys():
    parts = {"manifest", "manifests", "protocol", "cell", "notes", "outcome", "machine", "clock"}
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] in OTHERS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            subject = keyed(node)
            name = getattr(subject, "attr", getattr(subject, "id", ""))
            where = f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"
            assert name not in parts, f"{where} reads {name} by a text key"
    assert not hasattr(manifest("abc"), "__getitem__")


def test_a_change_of_what_cells_are_known_by_raises_the_schema():
    """Ids follow from these facts: with others, the cells of an older run folder would look damaged."""
    facts = [one.name for one in dataclasses.fields(Cell) if not one.metadata.get("label")]
    known = {3: "2a7011ce"}
    assert known[SCHEMA_VERSION] == digest([facts, [one.name for one in dataclasses.fields(Protocol)]], 8)
