# SPDX-License-Identifier: Apache-2.0
"""Match two run folders, or two cells, and compare them image by image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tta_bench.errors import BadInputError
from tta_bench.reports.facts import crowded
from tta_bench.reports.load import StoredCell, load_cells
from tta_bench.reports.paired import ComparedRow, Pair, compared_rows, pair
from tta_bench.spec.plain import to_plain
from tta_bench.spec.protocol import fact_text

_CELL = re.compile(r"(?P<folder>.+)/cells/(?P<cell>[^/]+)/?")
_CELL_FACTS = ("method", "preset", "hyperparameters", "method_hash")
Key = tuple[str, ...]


class FactDifference(NamedTuple):
    """One protocol fact that differs.

    Attributes:
        name: Name of the fact.
        kind: ``comparable`` facts make the accuracies incomparable; ``column`` and ``cell`` facts explain them.
        first: Values on the first side, joined.
        second: Values on the second side.
    """

    name: str
    kind: str
    first: str
    second: str


class Comparison(NamedTuple):
    """The differences between two sides: first the protocol, then the numbers.

    Attributes:
        first: Folder or cell as given, or the name of the method that the others are compared with.
        second: Folder or cell as given, or the names of these others.
        facts: Protocol facts that differ between the matched cells.
        rows: One per method, model, dataset and shift, and a mean over several shifts.
        only_first: What only the first side has.
        only_second: What only the second side has.
        disjoint: What both have, but on other images; it has no row.
        methods: Whether the sides are methods and no folders.
    """

    first: str
    second: str
    facts: tuple[FactDifference, ...]
    rows: tuple[ComparedRow, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    disjoint: tuple[str, ...]
    methods: bool = False


def compare(first: str, second: str, *, seed: int = 0, resamples: int = 10_000) -> Comparison:
    """Compare two run folders, or two cells given as ``FOLDER/cells/ID``, on the images that both have.

    Cells are matched by method, variant, model, dataset and shift. Two single cells are matched by dataset and
    shift alone, so that two methods can be compared.

    Args:
        first: Run folder or cell.
        second: Run folder or cell.
        seed: Seed of the bootstrap.
        resamples: Resampled sets of images.

    Raises:
        StoreError: If a folder cannot be read.
        BadInputError: If nothing matches, a match is ambiguous, labels disagree or no image is common.
    """
    free = bool(_CELL.fullmatch(first) and _CELL.fullmatch(second))
    left, right = _side(first, free), _side(second, free)
    matched = [key for key in left if key in right]
    if not matched:
        raise BadInputError(
            f"{first} and {second} should share a method, model, dataset and shift; the first has "
            f"{listed(left)}, the second {listed(right)}; to compare different methods name them, methods=A,B",
            options=("methods",),
        )
    pairs = [_pair(key, left[key], right[key], free) for key in matched]
    shared = [one for one in pairs if len(one.image)]
    if not shared:
        raise BadInputError(f"{first} and {second} have no image in common; run both on the same images")
    return Comparison(
        first,
        second,
        fact_differences([(left[key], right[key]) for key in matched]),
        compared_rows(shared, seed, resamples),
        tuple(cell_label(key) for key in left if key not in right),
        tuple(cell_label(key) for key in right if key not in left),
        tuple(cell_label(one.labels) for one in pairs if not len(one.image)),
    )


def _side(place: str, free: bool) -> dict[Key, list[StoredCell]]:
    match = _CELL.fullmatch(place)
    cells = load_cells([match["folder"]], [match["cell"]]) if match else load_cells([place])
    groups: dict[Key, list[StoredCell]] = defaultdict(list)
    for one in cells:
        if one.manifest.status == "complete":
            for shift in one.cell.shifts:
                groups[(*(("", "", "") if free else _names(one)), one.cell.dataset, shift)].append(one)
    for key, group in groups.items():
        for one, other in crowded(group)[:1]:
            raise BadInputError(
                f"{place} should have one cell of {cell_label(key)} for each seed and has {one.manifest.id} and "
                f"{other.manifest.id}; name one as {one.place}"
            )
    if not groups:
        raise BadInputError(
            f"{place} should have at least one finished cell and has none; finish the run first"
        )
    return dict(sorted(groups.items()))


def _names(one: StoredCell) -> Key:
    return one.cell.method, one.cell.variant, one.model


def cell_label(key: Key) -> str:
    """Return the parts of a key as a sentence names them."""
    return " ".join(part for part in key if part)


def listed(keys: Iterable[Key]) -> str:
    """Return the first of some keys as a sentence names them, and how many more there are."""
    names = [cell_label(key) for key in keys]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def fact_differences(
    matched: Sequence[tuple[Sequence[StoredCell], Sequence[StoredCell]]],
) -> tuple[FactDifference, ...]:
    """Return the facts of protocol and cell in which cells that were matched differ, comparable facts first."""
    found = []
    for kind in ("comparable", "column", "cell"):
        apart: dict[str, tuple[set[str], set[str]]] = {}
        for first, second in matched:
            left, right = ([_facts(cell, kind) for cell in side] for side in (first, second))
            for name in dict.fromkeys(name for facts in [*left, *right] for name in facts):
                one, other = ({facts.get(name, "(none)") for facts in side} for side in (left, right))
                if one != other:
                    before = apart.setdefault(name, (set(), set()))
                    before[0].update(one)
                    before[1].update(other)
        found += [
            FactDifference(name, kind, *("; ".join(sorted(values)) for values in sides))
            for name, sides in apart.items()
        ]
    return tuple(found)


def _facts(one: StoredCell, kind: str) -> dict[str, str]:
    own = {name: to_plain(getattr(one.cell, name)) for name in _CELL_FACTS}
    values = {"comparable": one.protocol.comparable, "column": one.protocol.columns, "cell": own}[kind]
    return {name: fact_text(value) for name, value in values.items()}


def _pair(key: Key, left: Sequence[StoredCell], right: Sequence[StoredCell], free: bool) -> Pair:
    *_, dataset, shift = key
    names = [" ".join(part for part in _names(cell)[:2] if part) for cell in (left[0], right[0])]
    models = [one.model for one in (left[0], right[0])]
    labels = (versus(names) if free else names[0], versus(models), dataset, shift)
    return pair(labels, shift, left, right)


def versus(names: Sequence[str]) -> str:
    """Return two names as one label."""
    return names[0] if names[0] == names[1] else f"{names[0]} vs {names[1]}"
