# SPDX-License-Identifier: Apache-2.0
"""Find protocol facts that forbid a common table, and group cells into rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from tta_bench.errors import MixedProtocolError
from tta_bench.reports.load import Cell
from tta_bench.spec import canonical

By = Literal["dataset", "shift"]

_WHOLE = frozenset({"class_list_hash", "label_mask", "precision", "device"})
"""Facts that have to agree between all cells of a table, not only between those of one stream."""

_PER_SEED = frozenset({"order_hash"})
"""Facts that a seed may change."""


class Conflict(NamedTuple):
    """One fact in which rows of a table differ.

    Attributes:
        dataset: Dataset of the rows.
        shift: Shift of the rows, or empty for all of them.
        fact: Name of the fact.
        values: Value and one place where it was found, for each value.
    """

    dataset: str
    shift: str
    fact: str
    values: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        told = " and ".join(f"{value} ({place})" for value, place in self.values)
        return f"{self.fact} of {self.shift or self.dataset}: {told}"


def row_groups(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Return the cells that make one row each: alike but for shift, order and seed."""
    groups: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[_row_key(cell)].append(cell)
    return [part for _, group in sorted(groups.items()) for part in _uncrowded(group)]


def _row_key(cell: Cell) -> str:
    manifest = cell.manifest
    columns = {name: value for name, value in manifest.columns.items() if name != "seed"}
    spec = [manifest.spec.get(name) for name in ("method", "hyperparameters", "model", "weights_sha256")]
    facts = [manifest.comparable.get(name) for name in sorted(_WHOLE)]
    identity = [
        cell.fact("dataset"),
        cell.fact("method_hash"),
        manifest.status,
        manifest.notes.get("variant"),
    ]
    return canonical([*spec, *identity, columns, facts])


def crowded(group: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Return pairs of cells that both claim the same shift and seed of one row."""
    owners: dict[tuple[str, int], Cell] = {}
    pairs = {}
    for cell in group:
        for shift in dict.fromkeys(cell.shifts):
            owner = owners.setdefault((shift, cell.seed), cell)
            if owner is not cell:
                pairs[owner.manifest.cell, cell.manifest.cell] = (owner, cell)
    return list(pairs.values())


def _uncrowded(group: list[Cell]) -> list[list[Cell]]:
    if not crowded(group):
        return [group]
    parts: dict[str, list[Cell]] = defaultdict(list)
    for cell in group:
        varying = {"severity", *_PER_SEED}
        parts[canonical({k: v for k, v in cell.manifest.comparable.items() if k not in varying})].append(cell)
    split = [part for _, part in sorted(parts.items())]
    return [piece for part in split for piece in ([[cell] for cell in part] if crowded(part) else [part])]


def conflicts(cells: Sequence[Cell], by: By) -> list[Conflict]:
    """Return every comparable fact in which cells of one table differ, in a stable order."""
    seen: dict[tuple[str, str, str, str], dict[str, str]] = defaultdict(dict)
    for cell in cells:
        place = f"{cell.fact('method')} in {cell.store.url}"
        for dataset, shift, scope, fact, value in _scoped_facts(cell, by):
            told = seen[dataset, shift, scope, fact]
            told[value] = min(place, told.get(value, place))
    found = {
        Conflict(dataset, shift, fact, tuple(sorted(values.items())))
        for (dataset, shift, _, fact), values in seen.items()
        if len(values) > 1
    }
    return sorted(found | set(_crowds(cells, by, {conflict.dataset for conflict in found})))


def _scoped_facts(cell: Cell, by: By) -> Iterator[tuple[str, str, str, str, str]]:
    dataset, stream = cell.fact("dataset"), canonical(cell.shifts)
    for fact, value in cell.manifest.comparable.items():
        text = value if isinstance(value, str) else canonical(value)
        if fact in _WHOLE and by == "dataset":
            yield dataset, "", "", fact, text
            continue
        scope = f"{stream} {cell.seed}" if fact in _PER_SEED else stream
        for shift in cell.shifts:
            yield dataset, shift, "" if fact in _WHOLE else scope, fact, text


def _crowds(cells: Sequence[Cell], by: By, known: set[str]) -> Iterator[Conflict]:
    groups: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[_row_key(cell)].append(cell)
    for group in groups.values():
        for first, second in crowded(group):
            if first.fact("dataset") not in known:
                yield _crowd(first, second, by)


def _crowd(first: Cell, second: Cell, by: By) -> Conflict:
    one, two = first.manifest.spec, second.manifest.spec
    differing = sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key)) or ["cell"]
    shared = sorted(set(first.shifts) & set(second.shifts))[0]
    places = (f"{cell.manifest.cell} in {cell.store.url}" for cell in (first, second))
    values = (canonical([spec.get(key) for key in differing]) for spec in (one, two))
    return Conflict(
        first.fact("dataset"),
        shared if by == "shift" else "",
        ", ".join(differing),
        tuple(sorted(zip(values, places, strict=True))),
    )


def refuse(found: Sequence[Conflict]) -> None:
    """Raise if rows of one table differ in a comparable fact.

    Raises:
        MixedProtocolError: With the facts, the values and where they come from.
    """
    if found:
        shown = "; ".join(str(conflict) for conflict in found[:5])
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise MixedProtocolError(
            f"rows of one table should agree in their comparable facts and differ in {shown}{more}; "
            "report them apart, or pass --allow-mixed to show them marked"
        )
