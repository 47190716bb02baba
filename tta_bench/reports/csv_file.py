# SPDX-License-Identifier: Apache-2.0
"""Write, read and validate leaderboard CSV files: declared columns, fixed digits, byte-stable."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import Any

import fsspec

from tta_bench.errors import BadInputError, StoreError
from tta_bench.records.files import write_whole
from tta_bench.reports.columns import COLUMNS, KINDS, NAMES, VERSION, Column, Row, ascending, names_of
from tta_bench.spec.texts import from_spreadsheet, spreadsheet_text

Value = str | int | float | bool | None


def write_csv(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Write rows as ``leaderboard.csv``: UTF-8, Unix line ends, fixed digits, nulls as empty fields.

    Args:
        rows: Rows in the order to write.
        path: A plain path or any URL that fsspec knows.

    Raises:
        BadInputError: If the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(NAMES)
    writer.writerows([_written(column, getattr(row, column.name)) for column in COLUMNS] for row in rows)
    try:
        # names of files may be any bytes
        write_whole(os.fspath(path), text.getvalue().encode("utf-8", "backslashreplace"))
    except StoreError as error:
        reason = error.__cause__ or error
        raise BadInputError(
            f"{path} should be writable and is not ({reason}); choose another file"
        ) from error


def _written(column: Column, value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if column.digits is None:
        return spreadsheet_text(value) if isinstance(value, str) else str(value)
    text = f"{value:.{column.digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def read_csv(path: str | os.PathLike[str]) -> list[Row]:
    """Read the rows of a leaderboard CSV of this version or an older one.

    Columns that were added since are empty in the rows of an older file.

    Raises:
        BadInputError: If the file cannot be read, or a column or a value is not as the format has it.
    """
    try:
        with fsspec.open(os.fspath(path), "rb") as handle:
            lines = list(csv.reader(io.StringIO(handle.read().decode(), newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{path} should be a readable CSV file and is not ({error})") from error
    names = _header(path, lines[0] if lines else [])
    return [_parse(path, number, names, line) for number, line in enumerate(lines[1:], start=1)]


def _header(path: object, header: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of a file, which are those of one of the versions."""
    versions = [names_of(version) for version in range(VERSION, 0, -1)]
    nearest = max(versions, key=lambda names: _agreeing(names, header))
    place = _agreeing(nearest, header)
    if place < len(nearest):
        came = header[place] if place < len(header) else "nothing"
        raise BadInputError(f"{path}: column {place + 1} should be {nearest[place]!r}, got {came!r}")
    if len(header) > len(nearest):
        raise BadInputError(
            f"{path}: column {header[place]!r} is not one of a leaderboard; if a newer tta-bench wrote the file, update"
        )
    return nearest


def _agreeing(names: Sequence[str], header: Sequence[str]) -> int:
    """Return how many columns from the first agree."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(names, header, strict=False)))


def validate_leaderboard(path: str | os.PathLike[str]) -> None:
    """Check every value of a leaderboard CSV.

    Raises:
        BadInputError: Naming the row and the column that is wrong, and what was expected there.
    """
    seen: dict[Row, int] = {}
    for number, row in enumerate(read_csv(path), start=1):
        _check_row(path, number, row)
        if row in seen:
            raise _wrong(path, number, "method", f"no repetition of row {seen[row]}", row.method)
        seen[row] = number


def _wrong(path: object, number: int, column: str, expected: str, came: object) -> BadInputError:
    return BadInputError(f"{path}: row {number}, column {column}: expected {expected}, got {came!r}")


def _parse(path: object, number: int, names: Sequence[str], line: Sequence[str]) -> Row:
    if len(line) != len(names):
        raise _wrong(path, number, "(all)", f"{len(names)} fields", len(line))
    texts = dict(zip(names, line, strict=True))
    values: dict[str, Any] = {
        column.name: _value(path, number, column, texts[column.name])
        for column in COLUMNS
        if column.name in texts
    }
    return Row(**values)


def _value(path: object, number: int, column: Column, text: str) -> Value:
    if column.kind == "text":
        return from_spreadsheet(text)
    if column.kind == "flag":
        if text not in ("true", "false"):
            raise _wrong(path, number, column.name, "true or false", text)
        return text == "true"
    if text == "":
        return None
    digits = column.digits
    if not re.fullmatch(r"\d+" if digits is None else rf"-?\d+\.\d{{{digits}}}", text, re.ASCII):
        wanted = "a whole number" if digits is None else f"a number with {digits} digits after the point"
        raise _wrong(path, number, column.name, wanted, text)
    value, limits = int(text) if digits is None else float(text), KINDS[column.kind]
    if not limits.low <= value <= limits.high:
        raise _wrong(path, number, column.name, f"{limits.low} to {limits.high}", text)
    return value


def _check_row(path: object, number: int, row: Row) -> None:
    values = vars(row)
    for column in COLUMNS:
        value = values[column.name]
        if column.required and value == "":
            raise _wrong(path, number, column.name, "a value", "")
        if column.choices and value not in column.choices:
            raise _wrong(path, number, column.name, " or ".join(column.choices), value)
    if (row.accuracy is not None) != (row.status in ("complete", "incomplete")):
        raise _wrong(path, number, "accuracy", "a value exactly where status is (in)complete", row.accuracy)
    for names in ascending():
        given = [(name, values[name]) for name in names if values[name] is not None]
        for (_, smaller), (name, larger) in pairwise(given):
            if smaller > larger:
                raise _wrong(path, number, name, f"at least {smaller}", larger)
