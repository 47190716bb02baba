# SPDX-License-Identifier: Apache-2.0
"""Aggregate cells over shifts and seeds into the rows of a leaderboard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, NamedTuple

from tta_bench.reports.columns import SOURCE, Row
from tta_bench.reports.coverage import Coverage, coverage
from tta_bench.reports.csv_file import validate_leaderboard, write_csv
from tta_bench.reports.facts import By, Conflict, conflicts, refuse, row_groups
from tta_bench.reports.load import StoredCell, load_cells, load_records
from tta_bench.reports.select import parse_where
from tta_bench.reports.summary import summarise
from tta_bench.reports.text import counted
from tta_bench.spec import Manifest, canonical, digest
from tta_bench.spec.protocol import ORIGINS

__all__ = ["Board", "board", "leaderboard", "validate_leaderboard", "write_csv"]

COSTS = ("ms_mean", "ms_p50", "ms_p95", "ms_p99", "peak_mib")
"""Columns that depend on the machine."""
_LISTED = ("failed", "collapsed")


def leaderboard(
    folders: Sequence[str],
    *,
    by: By = "dataset",
    cells: Collection[str] | None = None,
    allow_mixed: bool = False,
) -> list[Row]:
    """Return the rows of `board`; arguments and errors are its own."""
    return board(folders, by=by, cells=cells, allow_mixed=allow_mixed).rows


class Board(NamedTuple):
    """A leaderboard.

    Attributes:
        rows: One per method variant, model, dataset and protocol.
        missing: What was planned and is not there, in sentences.
    """

    rows: list[Row]
    missing: list[str]


def board(
    folders: Sequence[str],
    *,
    by: By = "dataset",
    cells: Collection[str] | None = None,
    allow_mixed: bool = False,
    where: Sequence[str] = (),
) -> Board:
    """Return one row per method variant, model, dataset and protocol, over all shifts and seeds.

    Failed and collapsed cells get rows with their status and no accuracy; running cells are left out. A row that has
    fewer cells than were planned for it is ``incomplete``, stands behind the complete ones and is not compared with
    them. The order of folders makes no difference.

    Args:
        folders: URLs of run folders.
        by: ``dataset`` aggregates over shifts, ``shift`` gives one row for each.
        cells: Cell ids to report; all if None.
        allow_mixed: Mark rows whose comparable facts differ instead of refusing them.
        where: Conditions on cells and rows, see `tta_bench.reports.select.parse_where`.

    Raises:
        StoreError: If a folder cannot be read or two disagree about a cell.
        BadInputError: If a wanted cell is in no folder.
        MixedProtocolError: If rows of one table differ in a comparable fact.
    """
    asked = parse_where(where, rows=True)
    loaded = [one for one in load_cells(folders, cells) if asked.of_stored(one)]
    complete = [cell for cell in loaded if cell.manifest.status == "complete"]
    with_plans = cells is None and not asked.stored
    planned = coverage(folders, loaded, asked.of_cell, with_plans=with_plans)
    problems = conflicts(complete, by)
    if not allow_mixed:
        refuse(problems)
    groups = row_groups(cell for cell in loaded if cell.manifest.status in ("complete", *_LISTED))
    codes = _code_marks(groups)
    made = (row for group, code in zip(groups, codes, strict=True) for row in _rows(group, by, code, planned))
    rows = [row for row in made if asked.of_row(row)]
    problems = [*problems, *_row_conflicts(rows, by)]
    if not allow_mixed:
        refuse(problems)
    return Board(sorted(_marked(rows, problems, by), key=_rank(rows, by)), planned.sentences())


def _code_marks(groups: Sequence[Sequence[StoredCell]]) -> list[str]:
    # Two versions of a method's code are two rows; only then is the version part of the variant.
    shown = [(one.cell.method, one.cell.variant, one.model, one.cell.dataset) for one, *_ in groups]
    hashes = [one.cell.method_hash for one, *_ in groups]
    count = Counter(name for name, _ in dict.fromkeys(zip(shown, hashes, strict=True)))
    return [f"code={code[:8]}" if count[name] > 1 else "" for name, code in zip(shown, hashes, strict=True)]


def _rows(group: Sequence[StoredCell], by: By, code: str, planned: Coverage) -> Iterator[Row]:
    shifts = sorted({shift for one in group for shift in one.cell.shifts})
    records = load_records(group) if group[0].manifest.status == "complete" else None
    if by == "dataset":
        yield _row(
            group, shifts, summarise(records) if records else None, code, planned.of_row(group[0].cell)
        )
        return
    for shift in sorted(records.shifts) if records else shifts:
        here = [one for one in group if shift in one.cell.shifts] or group
        numbers = summarise(records.of_shift(shift)) if records else None
        yield _row(here, [shift], numbers, code, planned.of_row(here[0].cell, shift))


def _row(
    group: Sequence[StoredCell],
    shifts: Sequence[str],
    numbers: Mapping[str, Any] | None,
    code: str,
    planned: int,
) -> Row:
    first = group[0]
    cell, protocol, notes = first.cell, first.protocol, first.manifest.notes
    values: dict[str, Any] = dict(numbers or {})
    machines = {_machine(one) for one in group}
    if len(machines) > 1:
        values = {name: value for name, value in values.items() if name not in COSTS}
    init_ms = [one.manifest.outcome.init_ms for one in group if one.manifest.outcome.init_ms is not None]
    values.update(
        method=cell.method,
        variant=",".join(part for part in (cell.variant, code) if part),
        category=notes.category,
        model=first.model,
        dataset=cell.dataset,
        shifts=";".join(shift.removeprefix(f"{cell.dataset}:") for shift in shifts),
        seeds=_joined(one.cell.seed for one in group),
        cells=len(group),
        planned=planned,
        init_ms=fmean(sorted(init_ms)) if init_ms and len(machines) == 1 else None,
        batch_size=protocol.batch_size,
        reset=protocol.reset,
        sees=notes.sees,
        severity=_joined(severity for one in group for severity in one.protocol.severity),
        precision=protocol.precision,
        device=protocol.device,
        machine=_joined(machines),
        noisy=any(_noisy(one.manifest) for one in group),
        weights="random" if notes.random_weights else protocol.weights[:8],
        weights_file=_joined(one.cell.weights_file for one in group if one.cell.weights_file),
        preprocessing=protocol.preprocessing,
        prompt_set=notes.prompt_set,
        prompts=protocol.prompts,
        source_data=protocol.source_data,
        hyperparameters_chosen=protocol.hyperparameters_chosen,
        origin=_joined(origin for one in group for origin in one.protocol.origin.split(ORIGINS)),
        looks=max(one.cell.looks for one in group) or None,
        protocol=digest(sorted(canonical(one.protocol.comparable) for one in group), 8),
        status="incomplete" if numbers and len(group) < planned else first.manifest.status,
        demonstration=any(_demonstration(one) for one in group),
        mixed=False,
    )
    return Row(**values)


def _joined(values: Iterable[object]) -> str:
    return ";".join(
        str(value) for value in sorted(set(values), key=lambda value: (len(str(value)), str(value)))
    )


def _machine(one: StoredCell) -> str:
    machine = one.manifest.machine
    return f"{machine.device_name}, {counted(machine.threads, 'thread')}, torch {machine.torch_build}"


def _noisy(manifest: Manifest) -> bool:
    """Return whether other work disturbed the clocks of a cell; cells of before this was noted are taken as sound."""
    load = manifest.outcome.load
    return load is not None and load.noisy(manifest.machine.cores)


def _demonstration(one: StoredCell) -> bool:
    return one.manifest.notes.demonstration or one.manifest.notes.random_weights


def _row_conflicts(rows: Sequence[Row], by: By) -> list[Conflict]:
    seen: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        if row.status != "complete":
            continue
        shift = row.shifts if by == "shift" else ""
        for fact, value in (("shifts", row.shifts), ("images", str(row.images))):
            methods = seen.setdefault((row.dataset, shift, fact), {})
            methods[value] = min(methods.get(value, row.method), row.method)
    return [
        Conflict(*key, tuple(sorted(values.items())))
        for key, values in sorted(seen.items())
        if len(values) > 1
    ]


def _marked(rows: Sequence[Row], found: Sequence[Conflict], by: By) -> list[Row]:
    whole = {conflict.dataset for conflict in found if by == "dataset" or not conflict.shift}
    shifts = {(conflict.dataset, conflict.shift.removeprefix(f"{conflict.dataset}:")) for conflict in found}
    return [replace(row, mixed=row.dataset in whole or (row.dataset, row.shifts) in shifts) for row in rows]


def _rank(rows: Sequence[Row], by: By) -> Any:
    """Return the order of rows within a block: the source model, or what predicts as it does, then by accuracy.

    Incomplete rows follow the complete ones, the source model among them: its gains would be over other shifts.
    """

    def block(row: Row) -> tuple[str, ...]:
        return (row.dataset, row.shifts if by == "shift" else "", row.model)

    with_source = {block(row) for row in rows if row.method == SOURCE}

    def rank(row: Row) -> tuple[Any, ...]:
        stands_in = block(row) not in with_source and row.gain_low == row.gain_high == 0
        below = row.accuracy is None, row.status == "incomplete", -(row.accuracy or 0.0)
        return (
            *block(row), not (row.method == SOURCE or stands_in), *below, row.method, row.variant,
            tuple(map(str, vars(row).values())),
        )  # fmt: skip

    return rank
