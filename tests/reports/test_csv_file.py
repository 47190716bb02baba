# SPDX-License-Identifier: Apache-2.0
"""A leaderboard file reads back as it was written, and every wrong value is found and named."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tta_bench.errors import BadInputError
from tta_bench.reports.columns import COLUMNS, KINDS, NAMES, VERSION, Row, documented, names_of
from tta_bench.reports.csv_file import read_csv, validate_leaderboard, write_csv
from tta_bench.reports.leaderboard import leaderboard

DOCS = Path(__file__).parents[2] / "docs" / "leaderboard.md"

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Cf"]), min_size=1, max_size=8)
numbers = {
    "fraction": st.floats(0, 1),
    "gain": st.floats(-1, 1),
    "ms": st.floats(0, 1e6),
    "mib": st.floats(0, 1e6),
    "count": st.integers(1, 10**6),
    "flag": st.booleans(),
    "text": texts,
}


@st.composite
def rows(draw):
    values = {
        one.name: draw(numbers[one.kind] if one.kind in ("text", "flag") else st.none() | numbers[one.kind])
        for one in COLUMNS
    }
    return Row(**values)


@given(st.lists(rows(), max_size=3))
def test_rows_read_back_to_the_last_digit_that_is_written(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("csv") / "leaderboard.csv"
    write_csv(written, path)
    again = read_csv(path)
    assert len(again) == len(written)
    for row, other in zip(written, again, strict=True):
        for one in COLUMNS:
            left, right = getattr(row, one.name), getattr(other, one.name)
            if one.digits is not None and left is not None:
                assert abs(left - right) <= 0.5000001 * 10**-one.digits
            else:
                assert left == right
    content = path.read_bytes()
    write_csv(again, path)
    assert path.read_bytes() == content


@pytest.fixture
def board(cell, make, tmp_path):
    cell("a", cell={"method": "source"})
    folder = cell("b", rows={"warmup": False})
    path = tmp_path / "leaderboard.csv"
    write_csv(leaderboard([folder]), path)
    return path


def test_what_the_leaderboard_writes_is_valid(board):
    validate_leaderboard(board)
    lines = board.read_bytes().split(b"\n")
    assert lines[0] == ",".join(NAMES).encode()
    assert len(lines) == 4
    assert lines[3] == b""


def changed(path, name, value, row=2):
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    lines[row][lines[0].index(name)] = value
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("accuracy", "1.200000", "0.0 to 1.0"),
        ("accuracy", "62.5", "6 digits"),
        ("accuracy", "nan", "6 digits"),
        ("accuracy", "", "complete"),
        ("accuracy_low", "0.999000", "at least 0.999"),
        ("gain", "-1.500000", "-1.0 to 1.0"),
        ("gain_high", "-1.000000", "at least"),
        ("ms_p50", "-1.0000", "0.0 to inf"),
        ("ms_p95", "0.0001", "at least"),
        ("images", "1.5", "whole number"),
        ("images", "0", "1 to inf"),
        ("batch_size", "-3", "whole number"),
        ("status", "done", "complete or failed or collapsed"),
        ("status", "failed", "complete"),
        ("sees", "everything", "image or batch"),
        ("demonstration", "yes", "true or false"),
        ("method", "", "a value"),
        ("device", "", "a value"),
    ],
)
def test_a_wrong_value_is_named_with_its_row_and_column(board, name, value, words):
    changed(board, name, value)
    with pytest.raises(BadInputError) as caught:
        validate_leaderboard(board)
    message = str(caught.value)
    assert f"{board}: row 2, column " in message
    assert words in message
    if words not in ("at least 0.999", "complete", "at least"):
        assert f"column {name}:" in message
        assert repr(value) in message


def test_missing_extra_and_reordered_columns_are_named(board):
    text = board.read_text()
    for change, words in (
        (lambda t: t.replace("accuracy,", "", 1), "column 11 should be 'accuracy', got 'accuracy_low'"),
        (lambda t: t.replace("mixed\n", "mixed,more\n", 1), "column 'more'"),
        (lambda _: "", "column 1 should be 'method', got 'nothing'"),
        (lambda t: t + "a,b\n", "row 3, column (all): expected"),
        (lambda t: t + t.split("\n")[1] + "\n", "row 3, column method: expected no repetition of row 1"),
    ):
        board.write_text(change(text))
        with pytest.raises(BadInputError, match=re.escape(words)):
            validate_leaderboard(board)


def test_what_cannot_be_read_or_written_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"gone\.csv should be a readable CSV"):
        validate_leaderboard(tmp_path / "gone.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInputError, match=r"bytes\.csv should be a readable CSV"):
        validate_leaderboard(tmp_path / "bytes.csv")
    with pytest.raises(BadInputError, match="should be writable"):
        write_csv([], tmp_path / "bytes.csv" / "board.csv")


def test_a_vanishing_difference_has_no_sign(board):
    (row, *_) = read_csv(board)
    write_csv([replace(row, gain=-1e-9, gain_low=-1e-9, gain_high=1e-9)], board)
    assert ",-0.000000" not in board.read_text()
    validate_leaderboard(board)


def test_the_documented_columns_are_those_that_are_declared():
    text = DOCS.read_text(encoding="utf-8")
    assert documented(text) == text
    assert re.findall(r"^\| `([a-z0-9_]+)` \|", text, flags=re.MULTILINE) == list(NAMES)
    with pytest.raises(BadInputError, match="columns: begin"):
        documented("nothing")


def test_every_column_says_what_it_means():
    for one in COLUMNS:
        assert not one.help[0].islower(), one.name
        assert one.help.endswith("."), one.name
        assert "|" not in one.help, one.name
        assert 1 <= one.since <= VERSION, one.name
    assert names_of(VERSION) == NAMES
    assert set(names_of(2)) - set(names_of(1)) == {"category", "machine", "prompt_set"}


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_a_file_of_an_older_version_is_read_and_validates(board, version):
    rows, kept = list(csv.DictReader(board.read_text("utf-8").splitlines())), names_of(version)
    with board.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, kept, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    validate_leaderboard(board)
    for row, text in zip(read_csv(board), rows, strict=True):
        assert row.method == text["method"]
        assert f"{row.accuracy:.6f}" == text["accuracy"]
        for one in COLUMNS:
            if one.name not in kept:
                assert getattr(row, one.name) in ("", None, False)


def test_a_name_that_is_no_text_is_written_by_its_bytes(cell, tmp_path):
    (row,) = leaderboard([cell("a")])
    write_csv([replace(row, dataset="folder:bad\udcff")], tmp_path / "board.csv")
    assert read_csv(tmp_path / "board.csv")[0].dataset == "folder:bad\\udcff"


@pytest.mark.parametrize("end", ["low", "high"])
def test_the_ends_of_every_range_are_valid(tmp_path, end):
    values = {}
    for column in COLUMNS:
        limit = getattr(KINDS[column.kind], end)
        if math.isfinite(limit):
            values[column.name] = type(limit)(limit)
    row = Row("a", model="b", dataset="c", reset="never", sees="image", precision="float32", device="cpu",
              status="complete", **values)  # fmt: skip
    write_csv([row], tmp_path / "ends.csv")
    validate_leaderboard(tmp_path / "ends.csv")
    assert read_csv(tmp_path / "ends.csv") == [row]
