# SPDX-License-Identifier: Apache-2.0
"""Write, read and validate leaderboard CSV files: fixed columns, fixed digits, byte-stable."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Sequence
from itertools import pairwise

import fsspec

from tta_bench.errors import BadInputError
from tta_bench.reports.row import DIGITS, KINDS, Kind, Row

Value = str | int | float | bool | None

_LIMITS: dict[Kind, tuple[float, float]] = {
    "fraction": (0.0, 1.0),
    "gain": (-1.0, 1.0),
    "ms": (0.0, math.inf),
    "mib": (0.0, math.inf),
    "count": (1, math.inf),
}
_NEVER_EMPTY = frozenset({"method", "model", "dataset", "reset", "precision", "device", "status"})
_CHOICES = {"sees": ("image", "batch"), "status": ("complete", "failed", "collapsed")}
_ASCENDING = (
    ("accuracy_low", "accuracy", "accuracy_high"),
    ("gain_low", "gain", "gain_high"),
    ("teacher_gain_low", "teacher_gain", "teacher_gain_high"),
    ("ms_p50", "ms_p95", "ms_p99"),
)


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
    writer.writerow(Row._fields)
    writer.writerows(
        [_told(name, value) for name, value in zip(Row._fields, row, strict=True)] for row in rows
    )
    try:
        with fsspec.open(os.fspath(path), "wb") as handle:
            handle.write(
                text.getvalue().encode("utf-8", "backslashreplace")
            )  # names of files may be any bytes
    except OSError as error:
        raise BadInputError(f"{path} should be writable and is not ({error}); choose another file") from error


def _told(name: str, value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    digits = DIGITS.get(KINDS[name])
    if digits is None:
        return str(value)
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def read_csv(path: str | os.PathLike[str]) -> list[Row]:
    """Read the rows of a leaderboard CSV.

    Raises:
        BadInputError: If the file cannot be read, or a column or a value is not as the format has it.
    """
    try:
        with fsspec.open(os.fspath(path), "rb") as handle:
            lines = list(csv.reader(io.StringIO(handle.read().decode(), newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{path} should be a readable CSV file and is not ({error})") from error
    header = lines[0] if lines else []
    for place, name in enumerate(Row._fields):
        if header[place : place + 1] != [name]:
            came = header[place] if place < len(header) else "nothing"
            raise BadInputError(f"{path}: column {place + 1} should be {name!r}, got {came!r}")
    if len(header) > len(Row._fields):
        raise BadInputError(f"{path}: column {header[len(Row._fields)]!r} is not one of a leaderboard")
    return [_parse(path, number, line) for number, line in enumerate(lines[1:], start=1)]


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


def _parse(path: object, number: int, line: Sequence[str]) -> Row:
    if len(line) != len(Row._fields):
        raise _wrong(path, number, "(all)", f"{len(Row._fields)} fields", len(line))
    return Row(*(_value(path, number, name, text) for name, text in zip(Row._fields, line, strict=True)))  # type: ignore[arg-type]


def _value(path: object, number: int, name: str, text: str) -> Value:
    kind = KINDS[name]
    if kind == "text":
        return text
    if kind == "flag":
        if text not in ("true", "false"):
            raise _wrong(path, number, name, "true or false", text)
        return text == "true"
    if text == "":
        return None
    digits = DIGITS.get(kind)
    if not re.fullmatch(r"\d+" if digits is None else rf"-?\d+\.\d{{{digits}}}", text, re.ASCII):
        wanted = "a whole number" if digits is None else f"a number with {digits} digits after the point"
        raise _wrong(path, number, name, wanted, text)
    value = int(text) if digits is None else float(text)
    low, high = _LIMITS[kind]
    if not low <= value <= high:
        raise _wrong(path, number, name, f"{low} to {high}", text)
    return value


def _check_row(path: object, number: int, row: Row) -> None:
    values = row._asdict()
    for name in Row._fields:
        if name in _NEVER_EMPTY and values[name] == "":
            raise _wrong(path, number, name, "a value", "")
        if name in _CHOICES and values[name] not in _CHOICES[name]:
            raise _wrong(path, number, name, " or ".join(_CHOICES[name]), values[name])
    if (row.accuracy is not None) != (row.status == "complete"):
        raise _wrong(path, number, "accuracy", "a value exactly where status is complete", row.accuracy)
    for names in _ASCENDING:
        told = [(name, values[name]) for name in names if values[name] is not None]
        for (_, smaller), (name, larger) in pairwise(told):
            if smaller > larger:
                raise _wrong(path, number, name, f"at least {smaller}", larger)
