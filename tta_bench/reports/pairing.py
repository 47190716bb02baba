# SPDX-License-Identifier: Apache-2.0
"""Match two run folders, or two cells, and compare them image by image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tta_bench.errors import BadInputError
from tta_bench.metrics.accuracy import Interval
from tta_bench.metrics.paired import bootstrap_mean, holm, mcnemar
from tta_bench.reports.facts import crowded
from tta_bench.reports.load import Floats, Integers, StoredCell, load_cells
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


class ComparedRow(NamedTuple):
    """Accuracies of both sides on the images that they have in common.

    Attributes:
        method: Method and variant; ``first vs second`` where two cells are compared.
        model: Model, likewise.
        dataset: Dataset.
        shift: Shift, or empty for the mean over the shifts above it.
        images_first: Images of the first side.
        images_second: Images of the second side.
        common: Images in both; all numbers are about these.
        accuracy_first: Fraction.
        accuracy_second: Fraction.
        difference: Second minus first, with the paired bootstrap interval over images.
        p: McNemar's mid-p; None where a row averages over shifts or seeds.
        p_holm: The same, adjusted by Holm for all tests of the comparison.
    """

    method: str
    model: str
    dataset: str
    shift: str
    images_first: int
    images_second: int
    common: int
    accuracy_first: float
    accuracy_second: float
    difference: Interval
    p: float | None
    p_holm: float | None


class Comparison(NamedTuple):
    """The differences between two sides: first the protocol, then the numbers.

    Attributes:
        first: Folder or cell as given.
        second: Folder or cell as given.
        facts: Protocol facts that differ between the matched cells.
        rows: One per method, model, dataset and shift, and a mean over several shifts.
        only_first: What only the first side has.
        only_second: What only the second side has.
        disjoint: What both have, but on other images; it has no row.
    """

    first: str
    second: str
    facts: tuple[FactDifference, ...]
    rows: tuple[ComparedRow, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    disjoint: tuple[str, ...]


class _Pair(NamedTuple):
    labels: tuple[str, str, str, str]
    images_first: int
    images_second: int
    image: NDArray[np.str_]  # (I,) ids of the common images, sorted
    first: Floats  # (I,) correctness of each common image, averaged over seeds
    second: Floats


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
            f"{_listed(left)}, the second {_listed(right)}; name two cells to compare different methods"
        )
    pairs = [_pair(key, left[key], right[key], free) for key in matched]
    shared = [pair for pair in pairs if len(pair.image)]
    if not shared:
        raise BadInputError(f"{first} and {second} have no image in common; run both on the same images")
    return Comparison(
        first,
        second,
        fact_differences([(left[key], right[key]) for key in matched]),
        _rows(shared, seed, resamples),
        tuple(_label(key) for key in left if key not in right),
        tuple(_label(key) for key in right if key not in left),
        tuple(_label(pair.labels) for pair in pairs if not len(pair.image)),
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
                f"{place} should have one cell of {_label(key)} for each seed and has {one.manifest.id} and "
                f"{other.manifest.id}; name one as {one.place}"
            )
    if not groups:
        raise BadInputError(
            f"{place} should have at least one finished cell and has none; finish the run first"
        )
    return dict(sorted(groups.items()))


def _names(one: StoredCell) -> Key:
    return one.cell.method, one.cell.variant, one.model


def _label(key: Key) -> str:
    return " ".join(part for part in key if part)


def _listed(side: dict[Key, list[StoredCell]]) -> str:
    names = [_label(key) for key in side]
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


def _pair(key: Key, left: Sequence[StoredCell], right: Sequence[StoredCell], free: bool) -> _Pair:
    *_, dataset, shift = key
    names = [" ".join(part for part in _names(cell)[:2] if part) for cell in (left[0], right[0])]
    models = [one.model for one in (left[0], right[0])]
    labels = (_versus(names) if free else names[0], _versus(models), dataset, shift)
    tables = [_correctness(cells, shift) for cells in (left, right)]
    ids = [table[0] for table in tables]
    common, one, other = np.intersect1d(ids[0], ids[1], assume_unique=True, return_indices=True)
    if (tables[0][1][one] != tables[1][1][other]).any():
        raise BadInputError(f"{_label(key)} has other labels on the two sides; compare runs of the same data")
    return _Pair(labels, len(ids[0]), len(ids[1]), common, tables[0][2][one], tables[1][2][other])


def _versus(names: Sequence[str]) -> str:
    return names[0] if names[0] == names[1] else f"{names[0]} vs {names[1]}"


def _correctness(cells: Sequence[StoredCell], shift: str) -> tuple[NDArray[np.str_], Integers, Floats]:
    """Return the ids of the images under one shift, their labels, and how often each was right over seeds."""
    columns = ["image_id", "shift", "label", "prediction"]
    tables = [cell.store.read(cell.manifest.id, columns) for cell in cells]
    table = pa.concat_tables([t.filter(pc.equal(t.column("shift"), shift)) for t in tables])
    encoded = table.column("image_id").combine_chunks().dictionary_encode()
    label, prediction = table.column("label").to_numpy(), table.column("prediction").to_numpy()
    codes = encoded.indices.to_numpy()
    labels = np.zeros(len(encoded.dictionary), dtype=np.int64)
    labels[codes] = label
    return (
        np.array(encoded.dictionary.to_pylist(), dtype=np.str_),
        labels,
        np.bincount(codes, prediction == label) / np.bincount(codes),
    )


def _rows(pairs: Sequence[_Pair], seed: int, resamples: int) -> tuple[ComparedRow, ...]:
    rows: list[ComparedRow] = []
    blocks: dict[tuple[str, str, str], list[_Pair]] = defaultdict(list)
    for pair in pairs:
        blocks[pair.labels[0], pair.labels[1], pair.labels[2]].append(pair)
    for labels, block in blocks.items():
        rows.extend(_row(pair, seed, resamples) for pair in block)
        if len(block) > 1 and all(np.array_equal(block[0].image, pair.image) for pair in block):
            first, second = (
                np.mean([getattr(p, side) for p in block], axis=0) for side in ("first", "second")
            )
            sizes = max(p.images_first for p in block), max(p.images_second for p in block)
            rows.append(_row(_Pair((*labels, ""), *sizes, block[0].image, first, second), seed, resamples))
    adjusted = iter(holm([row.p for row in rows if row.p is not None]))
    return tuple(row if row.p is None else row._replace(p_holm=next(adjusted)) for row in rows)


def _row(pair: _Pair, seed: int, resamples: int) -> ComparedRow:
    both = np.concatenate([pair.first, pair.second])
    p = (
        mcnemar(pair.first == 1, pair.second == 1).p
        if pair.labels[3] and np.isin(both, (0, 1)).all()
        else None
    )
    return ComparedRow(
        *pair.labels,
        pair.images_first,
        pair.images_second,
        len(pair.image),
        float(pair.first.mean()),
        float(pair.second.mean()),
        bootstrap_mean(pair.second - pair.first, seed=seed, resamples=resamples),
        p,
        None,
    )
