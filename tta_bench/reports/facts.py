# SPDX-License-Identifier: Apache-2.0
"""Find protocol facts that forbid a common table, and group cells into rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from tta_bench.errors import MixedProtocolError
from tta_bench.reports.load import StoredCell
from tta_bench.spec import FACTS, canonical
from tta_bench.spec.plain import to_plain
from tta_bench.spec.protocol import fact_text

By = Literal["dataset", "shift"]


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
        values = " and ".join(f"{value} ({place})" for value, place in self.values)
        return f"{self.fact} of {self.shift or self.dataset}: {values}"


def row_groups(cells: Iterable[StoredCell]) -> list[list[StoredCell]]:
    """Return the cells that make one row each: alike but for shift, order and seed."""
    groups: dict[str, list[StoredCell]] = defaultdict(list)
    for one in cells:
        groups[_row_key(one)].append(one)
    return [part for _, group in sorted(groups.items()) for part in _uncrowded(group)]


def _row_key(one: StoredCell) -> str:
    """Return what the cells of a row share; random weights differ from seed to seed as draws do."""
    cell, notes = one.cell, one.manifest.notes
    varying = {"seed", "weights"} if notes.random_weights else {"seed"}
    facts = one.protocol.of_scope("table", "column")
    return canonical(
        [
            [
                cell.method,
                to_plain(cell.hyperparameters),
                cell.method_hash,
                cell.dataset,
                one.manifest.status,
            ],
            {name: value for name, value in facts.items() if name not in varying},
        ]
    )


def crowded(group: Sequence[StoredCell]) -> list[tuple[StoredCell, StoredCell]]:
    """Return pairs of cells that both claim the same shift and seed of one row."""
    owners: dict[tuple[str, int], StoredCell] = {}
    pairs = {}
    for one in group:
        for shift in dict.fromkeys(one.cell.shifts):
            owner = owners.setdefault((shift, one.cell.seed), one)
            if owner is not one:
                pairs[owner.manifest.id, one.manifest.id] = (owner, one)
    return list(pairs.values())


def _uncrowded(group: list[StoredCell]) -> list[list[StoredCell]]:
    if not crowded(group):
        return [group]
    parts: dict[str, list[StoredCell]] = defaultdict(list)
    for one in group:
        parts[canonical(_of_a_part(one))].append(one)
    split = [part for _, part in sorted(parts.items())]
    return [piece for part in split for piece in ([[one] for one in part] if crowded(part) else [part])]


def _of_a_part(one: StoredCell) -> dict[str, object]:
    """Return the facts that shifts of one run share, but for what each shift has by itself."""
    own = {"severity", "data_hash"}
    return {name: value for name, value in one.protocol.of_scope("shift").items() if name not in own}


def conflicts(cells: Sequence[StoredCell], by: By) -> list[Conflict]:
    """Return why cells may not stand in one table: facts that differ, and rows that two cells claim; a stable order."""
    found = differing(cells, by)
    found |= set(_crowds(cells, by, {conflict.dataset for conflict in found}))
    return sorted(found | set(_origins(cells) if by == "dataset" else ()))


def differing(cells: Sequence[StoredCell], by: By) -> set[Conflict]:
    """Return every comparable fact in which cells of one table differ."""
    seen: dict[tuple[str, str, str, str], dict[str, str]] = defaultdict(dict)
    for one in cells:
        place = f"{one.cell.method} in {one.store.url}"
        for dataset, shift, scope, fact, value in _scoped_facts(one, by):
            places = seen[dataset, shift, scope, fact]
            places[value] = min(place, places.get(value, place))
    return {
        Conflict(dataset, shift, fact, tuple(sorted(values.items())))
        for (dataset, shift, _, fact), values in seen.items()
        if len(values) > 1
    }


def _origins(cells: Sequence[StoredCell]) -> Iterator[Conflict]:
    """Yield the rows that average over corrupted images of several origins, such as distributed and generated ones."""
    for group in row_groups(cells):
        places: dict[str, str] = {}
        for one in group:
            if one.protocol.severity:
                for origin in one.protocol.origins:
                    places[origin] = min(one.cell.shifts[0], places.get(origin, one.cell.shifts[0]))
        if len(places) > 1:
            yield Conflict(group[0].cell.dataset, "", "origin", tuple(sorted(places.items())))


def _scoped_facts(one: StoredCell, by: By) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield dataset, shift, scope, name and value of every comparable fact of a cell."""
    cell, stream = one.cell, canonical(one.cell.shifts)
    for fact in FACTS:
        text = fact_text(to_plain(getattr(one.protocol, fact.name)))
        if fact.scope == "table" and by == "dataset":
            yield cell.dataset, "", "", fact.name, text
        elif fact.scope != "column":
            scopes = {"table": "", "shift": stream, "seed": f"{stream} {cell.seed}"}
            for shift in cell.shifts:
                yield cell.dataset, shift, scopes[fact.scope], fact.name, text


def _crowds(cells: Sequence[StoredCell], by: By, known: set[str]) -> Iterator[Conflict]:
    groups: dict[str, list[StoredCell]] = defaultdict(list)
    for one in cells:
        groups[_row_key(one)].append(one)
    for group in groups.values():
        for first, second in crowded(group):
            if first.cell.dataset not in known:
                yield _crowd(first, second, by)


def _crowd(first: StoredCell, second: StoredCell, by: By) -> Conflict:
    one, two = (cell.cell.identity() | cell.protocol.comparable for cell in (first, second))
    differing = sorted(key for key in one if one[key] != two[key]) or ["cell"]
    shared = sorted(set(first.cell.shifts) & set(second.cell.shifts))[0]
    values = (canonical([facts.get(key) for key in differing]) for facts in (one, two))
    return Conflict(
        first.cell.dataset,
        shared if by == "shift" else "",
        ", ".join(differing),
        tuple(sorted(zip(values, (first.place, second.place), strict=True))),
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
            "report them apart, or pass allow_mixed=True to show them marked",
            options=("allow_mixed",),
        )
