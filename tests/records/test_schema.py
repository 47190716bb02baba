# SPDX-License-Identifier: Apache-2.0
"""Records and manifests keep their form, and what is not theirs is refused in a sentence."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tta_bench.errors import StoreError
from tta_bench.records.parse import parse_manifest
from tta_bench.records.schema import CLOCK_COLUMNS, RECORD_SCHEMA, REQUIRED_COLUMNS, SCHEMA_VERSION, Manifest

from .synthetic import manifest

COLUMNS = """cell image_id shift position label prediction confidence entropy top5 source_prediction source_confidence
teacher_prediction teacher_confidence view_ms encode_ms adapt_ms predict_ms peak_mib batch_size warmup reset seed"""


def test_the_columns_and_their_order_are_fixed():
    assert RECORD_SCHEMA.names == COLUMNS.split()
    assert RECORD_SCHEMA.field("seed").type == pa.int64()
    assert RECORD_SCHEMA.field("top5").type == pa.list_(pa.int32())
    nullable = {"teacher_prediction", "teacher_confidence", "peak_mib", *CLOCK_COLUMNS}
    assert set(RECORD_SCHEMA.names) - REQUIRED_COLUMNS == nullable


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4), st.dictionaries(st.text(), json_values))
def test_a_manifest_survives_the_file(spec, notes):
    written = manifest("abc", spec=spec | {"seed": 3}, notes=notes)
    assert parse_manifest(written.to_json(), "manifest.json") == written


def test_unknown_facts_of_the_same_version_are_kept():
    data = json.loads(manifest("abc").to_json()) | {"added_later": [1, 2]}
    again = parse_manifest(json.dumps(data).encode(), "m")
    assert json.loads(again.to_json())["added_later"] == [1, 2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", ["m.json", "damaged", "run the cell again"]),
        (b"[1]", ["m.json", "object", "list", "another run folder"]),
        (b"{}", ["m.json", "schema_version", "None"]),
        (b'{"schema_version": true}', ["schema_version", "True"]),
        (b'{"schema_version": 0}', ["schema_version", "0"]),
        (b'{"schema_version": 1}', ["m.json", "cell", "required", "run the cell again"]),
        (b'{"schema_version": 1, "cell": "a", "status": "odd"}', ["status", "running"]),
        (b'{"schema_version": 1, "cell": "a", "protocol": {"columns": {}}}', ["protocol", "comparable"]),
    ],
)
def test_what_is_no_manifest_is_refused(content, words):
    with pytest.raises(StoreError) as caught:
        parse_manifest(content, "m.json")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_newer_schema_is_refused_with_the_way_out():
    with pytest.raises(StoreError) as caught:
        parse_manifest(json.dumps({"schema_version": SCHEMA_VERSION + 1, "new": 1}).encode(), "m.json")
    assert str(caught.value) == (
        f"m.json was written by a newer tta-bench (schema {SCHEMA_VERSION + 1}, this one reads up to "
        f"{SCHEMA_VERSION}); upgrade with pip install -U tta-bench"
    )


def test_a_fresh_manifest_is_running_and_current():
    fresh = Manifest(cell="abc")
    assert (fresh.status, fresh.schema_version, fresh.comparable, fresh.columns) == (
        "running",
        SCHEMA_VERSION,
        {},
        {},
    )
