# SPDX-License-Identifier: Apache-2.0
"""``run --remeasure``: new times, the same predictions, or nothing at all."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tta_bench.records.schema import CLOCK_COLUMNS

COMMAND = ("run", "--method", "norm", "--dataset", "pocket-c:fog", "--limit", 60, "--batch-size", 20)
MEASURED = {*CLOCK_COLUMNS, "peak_mib"}


@pytest.fixture
def runs(tta_bench, tmp_path):
    """A run folder of one cell whose recorded times are absurd."""
    assert tta_bench(*COMMAND, "--output", tmp_path / "runs").code == 0
    (path,) = (tmp_path / "runs").glob("cells/*/records.parquet")
    rewrite(path, adapt_ms=lambda values: [1e6] * len(values))
    return tmp_path / "runs"


def rewrite(path, **columns):
    """Change columns of records as if they had been written so."""
    import hashlib

    table = pq.read_table(path)
    for name, change in columns.items():
        place = table.schema.get_field_index(name)
        values = pa.array(change(table.column(name).to_pylist()), table.schema.field(name).type)
        table = table.set_column(place, table.schema.field(name), values)
    pq.write_table(table, path)
    manifest = path.with_name("manifest.json")
    facts = json.loads(manifest.read_text())
    facts["records_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(facts))


def read(runs):
    (path,) = runs.glob("cells/*/records.parquet")
    return pq.read_table(path), json.loads(path.with_name("manifest.json").read_text())


def test_times_are_new_and_everything_else_is_as_it_was(runs, tta_bench):
    before, told = read(runs)
    done = tta_bench(*COMMAND, "--output", runs, "--remeasure")
    assert done.code == 0, done.err
    assert "0 cells computed, 0 reused, 1 timed again" in done.out
    after, now = read(runs)
    assert max(after.column("adapt_ms").to_pylist()) < 1e6
    for name in set(before.column_names) - MEASURED:
        assert after.column(name).to_pylist() == before.column(name).to_pylist(), name
    assert now["remeasured"]
    assert now["outcome"]["load"] is not None
    changed = {"remeasured", "outcome", "records_sha256", "machine"}
    assert {k: v for k, v in now.items() if k not in changed} == {
        k: v for k, v in told.items() if k not in changed
    }
    assert "1 reused" in tta_bench(*COMMAND, "--output", runs).out


def test_memory_stays_where_it_is_not_probed_again(runs, tta_bench):
    before = read(runs)[0].column("peak_mib").to_pylist()
    assert any(before)
    assert tta_bench(*COMMAND, "--output", runs, "--remeasure", "--no-memory").code == 0
    assert read(runs)[0].column("peak_mib").to_pylist() == before


def test_other_predictions_leave_the_cell_as_it_is(runs, tta_bench):
    (path,) = runs.glob("cells/*/records.parquet")
    rewrite(path, prediction=lambda values: [(values[0] + 1) % 16, *values[1:]])
    before = path.read_bytes(), path.with_name("manifest.json").read_bytes()
    done = tta_bench(*COMMAND, "--output", runs, "--remeasure")
    assert done.code == 1
    said = " ".join(done.out.split())
    assert "1 of 60 predictions are not as recorded" in said
    assert "not timed again: norm" in said
    assert "it no longer gives what is recorded, which stays" in said
    assert (path.read_bytes(), path.with_name("manifest.json").read_bytes()) == before


def test_what_is_not_there_yet_is_computed(tta_bench, tmp_path):
    done = tta_bench(*COMMAND, "--output", tmp_path / "new", "--remeasure")
    assert done.code == 0
    assert "1 cell computed, 0 reused. Written" in done.out
