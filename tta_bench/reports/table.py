# SPDX-License-Identifier: Apache-2.0
"""Print the table of a run, for a terminal of any width and for a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tta_bench.reports.columns import COLUMNS, SOURCE, Column, Row, Shown
from tta_bench.reports.text import Signs, measured, percent, signs
from tta_bench.spec.protocol import INCOMPLETE
from tta_bench.spec.texts import visible

DEMONSTRATION_MARK = "*"
NOISY_MARK = "~"
_STYLES = {"complete": "", "incomplete": "yellow"}


_STACK_BELOW = 4  # before columns of a lower rank go, model, dataset and shift move under the method
_NAMES = ("model", "dataset", "shifts")


class _Shown(NamedTuple):
    """A column of the terminal's table."""

    column: Column
    shown: Shown

    @property
    def title(self) -> str:
        return self.shown.title.replace("\n", " ")

    def text(self, row: Row, sign: Signs) -> str:
        """Return the value of a row as it is read: by a rule of its own, or by the column's kind."""
        if own := _TEXTS.get(self.column.name):
            return own(row, sign)
        value = getattr(row, self.column.name)
        if self.column.kind in ("fraction", "gain"):
            low, high = (getattr(row, f"{self.column.name}_{end}", None) for end in ("low", "high"))
            return percent(value, low, high, sign, signed=self.column.kind == "gain")
        if self.column.kind in ("ms", "mib"):
            return measured(value, sign)
        return sign.none if value is None else str(value)


_COLUMNS = tuple(_Shown(column, column.shown) for column in COLUMNS if column.shown)


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Print rows of a leaderboard with the notes that a reader needs.

    Columns that are the same in all rows move above the table, and where the console is narrow the less
    important columns are left out and named below it.

    Args:
        rows: Rows in the order to print.
        console: Where to print; see `tta_bench.reports.text.report_console`.
    """
    if not rows:
        console.print(Text("No finished cell to report."))
        return
    sign = signs(console)
    rows, machines = _lettered(rows)
    columns, shared = _shared(rows)
    layout = next(
        (layout for layout in _layouts(columns) if _width(layout, rows, sign) <= console.width),
        list(_layouts(columns))[-1],
    )
    if shared:
        console.print(Text(shared, style="bold"))
    console.print(_table(layout, rows, sign))
    for line in _footer(rows, machines, [column for column in columns if column.title not in layout.titles]):
        console.print(Text(line, style="dim"))


def _lettered(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Return rows with a letter in the place of their machine where they have several, and what the letters mean."""
    names = sorted({row.machine for row in rows if row.machine and row.ms_p50 is not None})
    letters = {name: chr(ord("a") + place) for place, name in enumerate(names)} if len(names) > 1 else {}
    told = [f"{letter}: {name}" for name, letter in letters.items()]
    return [replace(row, machine=letters.get(row.machine, "")) for row in rows], told


class Content(NamedTuple):
    """The content of a table, apart from any layout.

    Attributes:
        shared: What all rows share.
        titles: Of the columns.
        numbers: Whether each column holds numbers.
        cells: The texts of each row.
        notes: What a reader needs to know besides.
    """

    shared: str
    titles: list[str]
    numbers: list[bool]
    cells: list[list[str]]
    notes: list[str]


def table_content(rows: Sequence[Row]) -> Content:
    """Return what `print_table` shows where there is room for all of it."""
    if not rows:
        return Content("", [], [], [], ["No finished cell to report."])
    rows, machines = _lettered(rows)
    columns, shared = _shared(rows)
    sign = Signs("±", "–")
    return Content(
        shared,
        [column.title for column in columns],
        [not column.shown.wraps for column in columns],
        [[column.text(row, sign) for column in columns] for row in rows],
        _footer(rows, machines, []),
    )


def _method(row: Row, _: Signs) -> str:
    return f"{row.method} ({row.variant.replace(',', ', ')})" if row.variant else row.method


def _model(row: Row, _: Signs) -> str:
    file = f" ({Path(row.weights_file).name})" if row.weights_file else ""
    return row.model + file + (DEMONSTRATION_MARK if row.demonstration else "")


def _shift(row: Row, _: Signs) -> str:
    return "" if row.shifts == row.dataset else row.shifts


def _cells(row: Row, _: Signs) -> str:
    return f"{row.cells} of {row.planned}" if row.status == "incomplete" else ""


def _accuracy(row: Row, sign: Signs) -> str:
    if row.accuracy is None:
        return row.status
    return percent(row.accuracy, row.accuracy_low, row.accuracy_high, sign, signed=False)


def _gain(row: Row, sign: Signs) -> str:
    if row.method == SOURCE:
        return sign.none
    return percent(row.gain, row.gain_low, row.gain_high, sign, signed=True)


def clock(row: Row, sign: Signs) -> str:
    """Return the median time of a row with its batch size, marked where it is noisy."""
    batch = "" if row.ms_p50 is None or row.batch_size is None else f"@{row.batch_size}"
    noisy = NOISY_MARK if row.noisy and row.ms_p50 is not None else ""
    return noisy + measured(row.ms_p50, sign) + batch


_TEXTS: dict[str, Callable[[Row, Signs], str]] = {
    "method": _method, "model": _model, "shifts": _shift, "cells": _cells, "accuracy": _accuracy,
    "gain": _gain, "ms_p50": clock,
}  # fmt: skip


def _shared(rows: Sequence[Row]) -> tuple[list[_Shown], str]:
    """Return the columns that a table of these rows has, and the line of facts that all rows share."""
    sign = Signs("", "")
    columns, facts = [], []
    shifts = {_shift(row, sign) for row in rows}
    by_shift = len(shifts) > 1 and not any(";" in row.shifts for row in rows)
    for column in _COLUMNS:
        name, values = column.column.name, {column.text(row, sign) for row in rows}
        if name in ("model", "dataset") and len(values) == 1:
            facts.append(f"{column.title} {values.pop()}")
        elif name == "shifts" and not by_shift:
            facts.extend(_shift_fact(shifts))
        elif not column.shown.optional or values != {""}:
            columns.append(column)
    return columns, ", ".join(facts)


def _shift_fact(shifts: set[str]) -> list[str]:
    names = next(iter(shifts)).split(";") if len(shifts) == 1 else [""]
    if len(names) > 1:
        return [f"{len(names)} shifts"]
    return [f"shift {names[0]}"] if names[0] else []


class _Layout(NamedTuple):
    columns: list[_Shown]
    capped: bool
    stacked: list[_Shown]

    @property
    def titles(self) -> set[str]:
        return {column.title for column in [*self.columns, *self.stacked]}


def _layouts(columns: Sequence[_Shown]) -> Iterator[_Layout]:
    """Yield ever narrower layouts: natural, names wrapped, lesser columns gone, names stacked, more gone."""
    left = list(columns)
    yield _Layout(left, False, [])
    yield _Layout(left, True, [])
    stacked: list[_Shown] = []
    for column in sorted(columns, key=lambda column: -column.shown.rank):
        if column.shown.rank < _STACK_BELOW and not stacked:
            stacked = [name for name in left if name.column.name in _NAMES]
            left = [other for other in left if other not in stacked]
            yield _Layout(left, True, stacked)
        if column.shown.rank:
            left = [other for other in left if other is not column]
            yield _Layout(left, True, stacked)


def _cell(column: _Shown, row: Row, sign: Signs, layout: _Layout) -> str:
    below = layout.stacked if column.column.name == "method" else []
    names = [name.text(row, sign) for name in below]
    return visible("\n".join([column.text(row, sign), *(f"  {name}" for name in names if name)]))


def _width(layout: _Layout, rows: Sequence[Row], sign: Signs) -> int:
    widths = []
    for column in layout.columns:
        cells = [column.shown.title, *(_cell(column, row, sign, layout) for row in rows)]
        natural = max(cell_len(line) for cell in cells for line in cell.split("\n"))
        widths.append(min(natural, column.shown.wraps) if layout.capped and column.shown.wraps else natural)
    return sum(widths) + 2 * (len(widths) - 1)


def _table(layout: _Layout, rows: Sequence[Row], sign: Signs) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in layout.columns:
        wraps = column.shown.wraps
        table.add_column(
            column.shown.title,
            justify="left" if wraps else "right",
            no_wrap=not wraps,
            overflow="fold",
            max_width=wraps if layout.capped and wraps else None,
        )
    for row in rows:
        cells = (Text(_cell(column, row, sign, layout)) for column in layout.columns)
        table.add_row(*cells, style=_STYLES.get(row.status, "red"))
    return table


def _footer(rows: Sequence[Row], machines: Sequence[str], left_out: Sequence[_Shown]) -> list[str]:
    timed = [row for row in rows if row.ms_p50 is not None]
    partial = ", ".join(sorted({row.dataset for row in rows if INCOMPLETE in row.origin}))
    lines = (
        (
            any(row.accuracy is not None for row in rows),
            "Intervals are 95%; differences are points on the same images.",
        ),
        (
            any((row.batch_size or 1) > 1 for row in timed),
            "ms/image is batch time divided by batch size; latency is batch size 1.",
        ),
        (
            any(row.noisy for row in timed),
            f"{NOISY_MARK} other work kept the machine busy: these times are too long; --remeasure times them again.",
        ),
        (machines, f"Times and memory compare within one machine only ({'; '.join(machines)})."),
        (
            {row.sees for row in rows} == {"image", "batch"},
            "Do not rank methods that see a batch against methods that see one image.",
        ),
        (
            any(row.status == "incomplete" for row in rows),
            "Rows without all their cells are incomplete: do not rank them against the others.",
        ),
        (
            any(row.demonstration for row in rows),
            f"{DEMONSTRATION_MARK} demonstration: PocketScenes or random weights; says nothing about photographs.",
        ),
        (
            partial,
            f"Images of {partial} are missing: its rows are not those of the whole set; `origin` in the CSV says how "
            "many there are.",
        ),
        (
            any(row.mixed for row in rows),
            "Mixed protocols: comparable facts differ between rows; do not rank them.",
        ),
        (left_out, f"Left out at this width: {', '.join(column.title for column in left_out)}."),
    )
    return [line for applies, line in lines if applies]
