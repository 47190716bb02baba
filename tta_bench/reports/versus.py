# SPDX-License-Identifier: Apache-2.0
"""Compare methods with one another: the same model, shift, seed and images, whichever run folder they lie in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.reports.facts import crowded, differing, refuse
from tta_bench.reports.load import StoredCell
from tta_bench.reports.paired import Pair, compared_rows, pair
from tta_bench.reports.pairing import Comparison, Key, cell_label, fact_differences, listed, versus

OF_IMAGES = {"subset", "images_used", "order_hash"}
"""Facts that follow from which images a stream holds; pairing takes the images that both sides have."""
Groups = Mapping[Key, list[StoredCell]]


def compare_methods(
    cells: Sequence[StoredCell],
    methods: Sequence[str] = (),
    baseline: str = "",
    *,
    allow_mixed: bool = False,
    seed: int = 0,
    resamples: int = 10_000,
) -> Comparison:
    """Compare methods with a baseline on the images that both saw.

    Methods are paired where they ran on one model; where two have no model in common and one each, these are
    compared. Seeds that only one of them has are left out.

    Args:
        cells: Cells of any number of run folders; those that are not complete are left out.
        methods: ``NAME``, or ``NAME[lr=0.01]`` as tables name a variant; empty: every other method.
        baseline: The method that the others are compared with; empty: the first.
        allow_mixed: Compare methods whose comparable facts differ instead of refusing them.
        seed: Seed of the bootstrap.
        resamples: Resampled sets of images.

    Raises:
        UnknownNameError: For a method that the folders do not have.
        BadInputError: If fewer than two are named, a name is ambiguous, or two methods share nothing.
        MixedProtocolError: If their comparable facts differ.
    """
    complete = [one for one in cells if one.manifest.status == "complete"]
    labels = _labels(complete)
    named = list(dict.fromkeys(_label(one, labels) for one in (*([baseline] if baseline else ()), *methods)))
    if baseline and not methods:
        named += sorted(set(labels.values()) - set(named))
    if len(named) < 2:
        raise BadInputError(
            f"a comparison needs two methods or more, got {', '.join(named) or 'none'}; the runs have "
            f"{', '.join(sorted(set(labels.values()))) or 'no finished cell'}"
        )
    sides = {name: _groups([one for one in complete if labels[one.manifest.id] == name]) for name in named}
    first = named[0]
    matched = [match for name in named[1:] for match in _matches(first, name, sides[first], sides[name])]
    _refuse_mixed([one for *_, left, right in matched for one in (*left, *right)], allow_mixed)
    pairs = [pair(names, names[3], left, right) for names, left, right in matched]
    shared = [one for one in pairs if len(one.image)]
    if not shared:
        raise BadInputError(f"{' and '.join(named)} have no image in common; run them on the same images")
    facts = fact_differences([(left, right) for _, left, right in matched])
    return Comparison(
        first,
        ", ".join(named[1:]),
        tuple(one for one in facts if one.kind != "cell" and (allow_mixed or one.name not in OF_IMAGES)),
        compared_rows(shared, seed, resamples),
        *_apart(named, sides, pairs),
        methods=True,
    )


def _labels(cells: Sequence[StoredCell]) -> dict[str, str]:
    """Return what each cell's method is called, by its id; versions of one method's code are told apart."""
    hashes = {(one.cell.method, one.cell.variant, one.cell.method_hash) for one in cells}
    versions = Counter(key[:2] for key in hashes)
    found = {}
    for one in cells:
        several = versions[one.cell.method, one.cell.variant] > 1
        parts = [one.cell.variant, f"code={one.cell.method_hash[:8]}" if several else ""]
        inner = ",".join(part for part in parts if part)
        found[one.manifest.id] = f"{one.cell.method}[{inner}]" if inner else one.cell.method
    return found


def _label(name: str, labels: Mapping[str, str]) -> str:
    """Return the label that a name stands for."""
    known = sorted(set(labels.values()))
    if name in known:
        return name
    near = [one for one in known if one.partition("[")[0] == name]
    if not near:
        raise UnknownNameError(
            "method of these runs", name, known, f"they have {', '.join(known)}", options=("methods",)
        )
    if len(near) > 1:
        raise BadInputError(
            f"{name} stands for {len(near)} variants, {' and '.join(near)}; name one of them",
            options=("methods",),
        )
    return near[0]


def _groups(cells: Sequence[StoredCell]) -> dict[Key, list[StoredCell]]:
    """Return the cells of one method by model, dataset and shift.

    Raises:
        BadInputError: If two cells claim one shift and seed.
    """
    groups: dict[Key, list[StoredCell]] = defaultdict(list)
    for one in cells:
        for shift in one.cell.shifts:
            groups[one.cell.model, one.cell.dataset, shift].append(one)
    for key, group in groups.items():
        for one, other in crowded(group)[:1]:
            raise BadInputError(
                f"{one.cell.method} should have one cell of {cell_label(key)} for each seed and has {one.manifest.id} "
                f"and {other.manifest.id}, which differ in {_facts_apart(one, other)}; choose with where, e.g. "
                f"where=id={one.manifest.id}",
                options=("where",),
            )
    return dict(sorted(groups.items()))


def _facts_apart(one: StoredCell, other: StoredCell) -> str:
    facts = [side.cell.identity() | side.protocol.comparable | side.protocol.columns for side in (one, other)]
    return ", ".join(sorted(name for name in facts[0] if facts[0][name] != facts[1].get(name)))


def _matches(
    first: str, second: str, left: Groups, right: Groups
) -> Iterator[tuple[tuple[str, str, str, str], list[StoredCell], list[StoredCell]]]:
    """Yield the labels and the cells of what two methods share.

    Raises:
        BadInputError: If they share nothing.
    """
    models = [{key[0] for key in side} for side in (left, right)]
    across = not models[0] & models[1] and len(models[0]) == len(models[1]) == 1
    found = False
    for key in left:
        other = (*models[1], *key[1:]) if across else key
        both = _of_common_seeds(left[key], right.get(other, ()))
        if both[0]:
            found = True
            model = versus((other[0], key[0]))
            yield (f"{second} vs {first}", model, key[1], key[2]), *both
    if not found:
        raise BadInputError(
            f"{first} and {second} should share a model, a shift and a seed; {first} has {listed(left)}, {second} "
            f"{listed(right)}; run both on the same"
        )


def _of_common_seeds(
    left: Sequence[StoredCell], right: Sequence[StoredCell]
) -> tuple[list[StoredCell], list[StoredCell]]:
    seeds = {one.cell.seed for one in left} & {one.cell.seed for one in right}
    return [one for one in left if one.cell.seed in seeds], [one for one in right if one.cell.seed in seeds]


def _refuse_mixed(cells: Sequence[StoredCell], allow_mixed: bool) -> None:
    """Refuse cells that answer different questions; that they hold different images is no obstacle."""
    found = sorted(differing(list({one.manifest.id: one for one in cells}.values()), "shift"))
    fewer = {one.shift for one in found if one.fact in ("subset", "images_used")}
    kept = [one for one in found if not (one.shift in fewer and one.fact in OF_IMAGES)]
    if not allow_mixed:
        refuse(kept)


def _apart(
    named: Sequence[str], sides: Mapping[str, Groups], pairs: Sequence[Pair]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return what only the baseline has, what only the others have, and what has no common image."""
    shifts = {name: {key[1:] for key in side} for name, side in sides.items()}
    first, *others = named
    of_others = set().union(*(shifts[name] for name in others))
    return (
        tuple(cell_label((first, *key)) for key in sorted(shifts[first] - of_others)),
        tuple(cell_label((name, *key)) for name in others for key in sorted(shifts[name] - shifts[first])),
        tuple(cell_label(one.labels) for one in pairs if not len(one.image)),
    )
