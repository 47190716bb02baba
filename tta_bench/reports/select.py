# SPDX-License-Identifier: Apache-2.0
"""Choose cells and rows by conditions such as ``method=tent,eata`` or ``accuracy>0.5``, and sort rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.reports.columns import COLUMNS, NAMES, Row
from tta_bench.reports.load import StoredCell
from tta_bench.spec import Cell

OF_CELLS = (
    "method", "variant", "preset", "model", "dataset", "shift", "subset", "seed", "data_seed", "reset", "batch_size",
    "scenario", "precision", "device", "prompts", "chosen",
)  # fmt: skip
"""Facts of a cell, also of one that is planned and not yet there."""
OF_STORED = ("id", "status", "category", "sees")
"""Facts of a cell that was begun."""
_CONDITION = re.compile(r"(?P<name>\w+)(?P<sign>!=|>=|<=|=|>|<)(?P<value>.*)", re.DOTALL)
_ORDERED = {
    ">": lambda one, other: one > other,
    "<": lambda one, other: one < other,
    ">=": lambda one, other: one >= other,
    "<=": lambda one, other: one <= other,
}


class Condition(NamedTuple):
    """One condition.

    Attributes:
        name: Of a fact or a column.
        sign: ``=``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.
        value: What it is compared with; several with commas, and ``*`` in them stands for any text.
    """

    name: str
    sign: str
    value: str

    def holds(self, values: Iterable[Any]) -> bool:
        """Return whether one of the values of a fact is as asked; ``!=`` asks it of all.

        Raises:
            BadInputError: If text is to be ordered.
        """
        found = list(values)
        if self.sign in _ORDERED:
            return any(one is not None and _ORDERED[self.sign](float(one), self._number()) for one in found)
        wanted = [part.strip() for part in self.value.split(",")]
        hit = any(fnmatchcase(_text(one), part) for one in found for part in wanted)
        return hit == (self.sign == "=")

    def _number(self) -> float:
        try:
            return float(self.value)
        except ValueError as error:
            raise BadInputError(
                f"where {self.name}{self.sign} must be followed by a number, got {self.value!r}",
                options=("where",),
            ) from error


class Conditions(NamedTuple):
    """Conditions, apart by what they are about.

    Attributes:
        cells: On facts that planned cells have too.
        stored: On facts of cells that were begun.
        rows: On columns of the table.
    """

    cells: tuple[Condition, ...] = ()
    stored: tuple[Condition, ...] = ()
    rows: tuple[Condition, ...] = ()

    def of_cell(self, cell: Cell) -> bool:
        """Return whether a cell that is planned is meant."""
        return all(one.holds(_cell_values(cell, one.name)) for one in self.cells)

    def of_stored(self, one: StoredCell) -> bool:
        """Return whether a cell that was begun is meant."""
        manifest = one.manifest
        facts = (manifest.id, manifest.status, manifest.notes.category, manifest.notes.sees)
        return self.of_cell(one.cell) and self._of_facts(facts)

    def of_planned(self, cell: Cell) -> bool:
        """Return whether a cell that is planned and not begun is meant; its status is ``planned``."""
        return self.of_cell(cell) and self._of_facts(("", "planned", "", ""))

    def _of_facts(self, values: Sequence[str]) -> bool:
        facts = dict(zip(OF_STORED, values, strict=True))
        return all(asked.holds([facts[asked.name]]) for asked in self.stored)

    def of_row(self, row: Row) -> bool:
        """Return whether a row is meant."""
        return all(one.holds([getattr(row, one.name)]) for one in self.rows)


def parse_where(texts: Sequence[str], *, rows: bool = False) -> Conditions:
    """Return conditions given as text, all of which must hold.

    Args:
        texts: ``name=value`` with any sign of `Condition`.
        rows: Whether columns of the table may be named too.

    Raises:
        BadInputError: If one is no condition.
        UnknownNameError: If one names no fact.
    """
    found: dict[str, list[Condition]] = {"cells": [], "stored": [], "rows": []}
    for text in texts:
        match = _CONDITION.fullmatch(text.strip())
        if match is None:
            raise BadInputError(
                f"where must be like method=tent, method=tent,eata, seed>0 or shift=*:fog:*, got {text!r}",
                options=("where",),
            )
        condition = Condition(match["name"], match["sign"], match["value"].strip())
        found[_kind(condition.name, rows)].append(condition)
    return Conditions(**{kind: tuple(ones) for kind, ones in found.items()})


def _kind(name: str, rows: bool) -> str:
    if name in OF_CELLS:
        return "cells"
    if name in OF_STORED and not (rows and name == "status"):
        return "stored"
    if rows and name in NAMES:
        return "rows"
    known = dict.fromkeys((*OF_CELLS, *OF_STORED, *(NAMES if rows else ())))
    raise UnknownNameError("fact in where", name, known, options=("where",))


def _cell_values(cell: Cell, name: str) -> Sequence[Any]:
    return cell.shifts if name == "shift" else [getattr(cell, name)]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def sorted_rows(rows: Sequence[Row], name: str) -> list[Row]:
    """Return rows ordered by a column, those that are no complete results behind; equal ones keep their order.

    Accuracies and gains fall, all else rises; ``-name`` turns it round.

    Raises:
        UnknownNameError: If there is no such column.
    """
    column = next((one for one in COLUMNS if one.name == name.removeprefix("-")), None)
    if column is None:
        raise UnknownNameError("column", name, NAMES, options=("sort",))
    falls = (column.kind in ("fraction", "gain")) != name.startswith("-")
    given = [row for row in rows if getattr(row, column.name) is not None]
    ordered = sorted(given, key=lambda row: getattr(row, column.name), reverse=falls)
    without = [row for row in rows if getattr(row, column.name) is None]
    return sorted([*ordered, *without], key=lambda row: row.status != "complete")
