# SPDX-License-Identifier: Apache-2.0
"""A table says how much of what was planned it shows, and ranks no part of a run with the whole of another."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from tta_bench.engine.session import Session
from tta_bench.errors import Caution
from tta_bench.records.files import Files
from tta_bench.records.plans import put_plan
from tta_bench.records.store import Store
from tta_bench.reports.csv_file import validate_leaderboard
from tta_bench.reports.leaderboard import board, leaderboard
from tta_bench.reports.table_files import write_table

SHIFTS = ("fog", "snow", "blur")
RUN = ("run", "--method", "source", "--method", "norm", "--dataset", "pocket-c:fog", "--dataset", "pocket-c:snow",
       "--limit", 8)  # fmt: skip


def shifted(kind, method):
    return {"shifts": (f"imagenet-c:{kind}:5",), "method": method}


@pytest.fixture
def half(cell, make):
    """A folder whose plan asks three shifts of two methods; mine has one of them, and the better accuracy."""
    for kind in SHIFTS:
        folder = cell(f"t-{kind}", cell=shifted(kind, "tent"), rate=0.5)
    cell("m-fog", cell=shifted("fog", "mine"), rate=0.9)
    cells = [
        make.manifest("x", cell=shifted(kind, name)).cell for kind in SHIFTS for name in ("tent", "mine")
    ]
    put_plan(Files(folder), cells)
    return folder


def test_an_incomplete_row_is_marked_and_stands_last(tta_bench, half, tmp_path):
    rows = leaderboard([half])
    assert [(row.method, row.status, row.cells, row.planned) for row in rows] == [
        ("tent", "complete", 3, 3), ("mine", "incomplete", 1, 3),
    ]  # fmt: skip
    assert rows[1].accuracy > rows[0].accuracy
    path = tmp_path / "t.csv"
    done = tta_bench("leaderboard", half, "--output", path)
    assert done.code == 0
    told = " ".join(done.out.split())
    assert "1 of 3" in told
    assert "4 of 6 cells, interrupted: mine on imagenet-c (2) are missing" in told
    validate_leaderboard(path)
    last = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))[-1]
    assert (last["status"], last["cells"], last["planned"]) == ("incomplete", "1", "3")
    assert tta_bench("leaderboard", half, "-o", path, "--require-complete").code == 1


def test_a_complete_folder_says_nothing(tta_bench, half, cell, tmp_path):
    for kind in SHIFTS[1:]:
        cell(f"m-{kind}", cell=shifted(kind, "mine"), rate=0.9)
    done = tta_bench("leaderboard", half, "-o", tmp_path / "t.csv", "--require-complete")
    assert done.code == 0
    assert "interrupted" not in done.out
    assert [row.method for row in leaderboard([half])] == ["mine", "tent"]


def test_rows_per_shift_count_the_cells_of_their_shift(half):
    found = board([half], by="shift")
    assert {row.status for row in found.rows} == {"complete"}
    assert found.missing


def test_a_cell_that_began_counts_without_any_plan(cell, make, tmp_path):
    folder = cell("a", cell=shifted("fog", "tent"))
    Store(tmp_path / "runs").write_manifest(
        make.manifest("b", status="running", cell=shifted("snow", "tent"))
    )
    (row,) = leaderboard([folder])
    assert (row.status, row.cells, row.planned) == ("incomplete", 1, 2)


def test_a_run_under_way_is_not_called_interrupted(half, make, monkeypatch):
    store = Store(half)
    store.write_manifest(make.manifest("m-snow", status="running", cell=shifted("snow", "mine")))
    assert "4 of 6 cells, interrupted" in board([half]).missing[0]
    monkeypatch.setattr(Store, "is_written", lambda self, cell: cell == "m-snow")
    assert "4 of 6 cells, a run is under way" in board([half]).missing[0]


def test_an_edit_of_the_code_replaces_the_plan_made_before_it(half, cell, make):
    for kind in SHIFTS:
        cell(f"new-{kind}", cell={**shifted(kind, "mine"), "method_hash": "b" * 64}, rate=0.9)
    found = board([half])
    assert found.missing == []
    assert [(row.method, row.variant, row.status) for row in found.rows] == [
        ("mine", "code=bbbbbbbb", "complete"), ("tent", "", "complete"), ("mine", "code=aaaaaaaa", "incomplete"),
    ]  # fmt: skip


def test_conditions_apply_to_what_is_planned_too(half):
    assert board([half], where=["method=tent"]).missing == []
    assert board([half], where=["shift=*:fog:*"]).missing == []
    assert board([half], where=["method=mine"]).missing


def test_an_interrupted_run_leaves_its_plan_and_says_what_is_missing(tta_bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole, count = Session._compute, []

    def interrupt(self, *arguments):
        count.append(1)
        if len(count) == 4:
            raise KeyboardInterrupt
        return whole(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "_compute", interrupt)
        done = tta_bench(*RUN)
    assert done.code == 130
    assert "3 of 4 cells, interrupted: norm on pocket-c (1) is missing" in done.out
    (plan,) = Path("runs/plans").glob("*.json")
    assert len(json.loads(plan.read_text())["cells"]) == 4
    told = tta_bench("leaderboard", "runs")
    assert "3 of 4 cells, interrupted: norm on pocket-c (1) is missing" in told.out
    assert "1 of 2" in told.out
    rows = list(csv.DictReader(Path("runs/leaderboard.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["method"]: row["status"] for row in rows} == {"source": "complete", "norm": "incomplete"}
    assert tta_bench(*RUN, "--resume").code == 0
    assert "interrupted" not in tta_bench("leaderboard", "runs").out
    assert len(list(Path("runs/plans").glob("*.json"))) == 1


@pytest.mark.filterwarnings("always::tta_bench.errors.Caution")
def test_a_vanished_manifest_and_a_changed_record_are_said(tta_bench, half, tmp_path):
    cells = Path(half) / "cells"
    (cells / "t-fog" / "manifest.json").unlink()
    records = cells / "t-snow" / "records.parquet"
    records.write_bytes(records.read_bytes()[:-1] + b"x")
    done = tta_bench("leaderboard", half, "-o", tmp_path / "t.csv")
    assert "cell t-fog" in done.err
    assert "its manifest.json is missing" in done.err
    assert "its records.parquet is not the file that was written" in done.err
    assert "2 of 6 cells" in done.out


def test_of_copies_it_is_said_which_are_kept(half, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(half, other)
    with pytest.warns(
        Caution, match=r"4 cells in both .*: .* and 3 more; each counts once, and those of .* are used"
    ):
        rows = leaderboard([half, str(other)])
    assert [row.method for row in rows] == ["tent", "mine"]


def test_the_suffix_chooses_the_format_and_a_foreign_one_is_refused(tta_bench, half, tmp_path):
    import pandas as pd

    for suffix in ("md", "json", "parquet", "csv"):
        assert tta_bench("leaderboard", half, "-o", tmp_path / f"t.{suffix}").code == 0
    rows = leaderboard([half])
    assert json.loads((tmp_path / "t.json").read_text())[0]["accuracy"] == rows[0].accuracy
    assert list(pd.read_parquet(tmp_path / "t.parquet")["method"]) == ["tent", "mine"]
    text = (tmp_path / "t.md").read_text(encoding="utf-8")
    assert "| method | images | cells |" in text
    assert text.count("\n| ") >= 3
    done = tta_bench("leaderboard", half, "-o", tmp_path / "t.xlsx")
    assert done.code == 2
    assert "--output should end in .csv, .md, .json or .parquet" in done.err
    assert not (tmp_path / "t.xlsx").exists()
    write_table([], tmp_path / "empty.md")
    assert (tmp_path / "empty.md").read_text() == "No finished cell to report.\n"


def test_rows_are_sorted_and_chosen(tta_bench, cell, tmp_path):
    for name, rate, ms in (("tent", 0.5, 1.0), ("mine", 0.9, 9.0), ("zero", 0.7, 4.0)):
        folder = cell(name, rate=rate, cell={"method": name}, rows={"adapt_ms": ms, "warmup": False})

    def order(*words):
        done = tta_bench("leaderboard", folder, "-o", tmp_path / "t.csv", *words)
        assert done.code == 0, done.err
        return [
            row["method"]
            for row in csv.DictReader((tmp_path / "t.csv").read_text(encoding="utf-8").splitlines())
        ]

    assert order("--sort", "accuracy") == ["mine", "zero", "tent"]
    assert order("--sort", "-accuracy") == ["tent", "zero", "mine"]
    assert order("--sort", "ms_p50") == ["tent", "zero", "mine"]
    assert order("--sort", "method", "--where", "method=t*,zero") == ["tent", "zero"]
    assert order("--where", "ms_p50<5", "--where", "method!=tent") == ["zero"]
    for words, sentence in [
        (("--sort", "acuracy"), "unknown column 'acuracy'; did you mean 'accuracy'"),
        (("--where", "metod=tent"), "unknown fact in --where 'metod'; did you mean 'method'"),
        (("--where", "tent"), "--where must be like method=tent"),
        (("--where", "gain>x"), "--where gain> must be followed by a number"),
    ]:
        done = tta_bench("leaderboard", folder, "-o", tmp_path / "t.csv", *words)
        assert done.code == 2
        assert sentence in done.err
