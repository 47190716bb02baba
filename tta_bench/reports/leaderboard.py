# SPDX-License-Identifier: Apache-2.0
"""Aggregate cells over shifts and seeds into the rows of a leaderboard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from tta_bench.reports.columns import SOURCE, Row
from tta_bench.reports.csv_file import validate_leaderboard, write_csv
from tta_bench.reports.facts import By, Conflict, conflicts, refuse, row_groups
from tta_bench.reports.load import Cell, load_cells, load_records
from tta_bench.reports.summary import summarise
from tta_bench.spec import canonical, digest

__all__ = ["leaderboard", "validate_leaderboard", "write_csv"]

_LISTED = ("failed", "collapsed")


def leaderboard(
    folders: Sequence[str],
    *,
    by: By = "dataset",
    cells: Collection[str] | None = None,
    allow_mixed: bool = False,
) -> list[Row]:
    """Return one row per method variant, model, dataset and protocol, over all shifts and seeds.

    Failed and collapsed cells get rows with their status and no accuracy; running cells are left out. The
    order of folders makes no difference.

    Args:
        folders: URLs of run folders.
        by: ``dataset`` aggregates over shifts, ``shift`` gives one row for each.
        cells: Cell ids to report; all if None.
        allow_mixed: Mark rows whose comparable facts differ instead of refusing them.

    Raises:
        StoreError: If a folder cannot be read or two disagree about a cell.
        BadInputError: If a wanted cell is in no folder.
        MixedProtocolError: If rows of one table differ in a comparable fact.
    """
    loaded = load_cells(folders, cells)
    complete = [cell for cell in loaded if cell.manifest.status == "complete"]
    found = conflicts(complete, by)
    if not allow_mixed:
        refuse(found)
    groups = row_groups(cell for cell in loaded if cell.manifest.status in ("complete", *_LISTED))
    codes = _code_marks(groups)
    rows = [row for group, code in zip(groups, codes, strict=True) for row in _rows(group, by, code)]
    found = [*found, *_row_conflicts(rows, by)]
    if not allow_mixed:
        refuse(found)
    return sorted(_marked(rows, found, by), key=_rank(rows, by))


def _code_marks(groups: Sequence[Sequence[Cell]]) -> list[str]:
    # Two versions of a method's code are two rows; only then is the version part of the variant.
    shown = [
        (
            cell.fact("method"),
            str(cell.manifest.notes.get("variant")),
            cell.fact("model"),
            cell.fact("dataset"),
        )
        for cell in (group[0] for group in groups)
    ]
    versions = {
        pair: None for pair in zip(shown, (group[0].fact("method_hash") for group in groups), strict=True)
    }
    count = Counter(name for name, _ in versions)
    return [
        f"code={group[0].fact('method_hash')[:8]}" if count[name] > 1 else ""
        for name, group in zip(shown, groups, strict=True)
    ]


def _rows(group: Sequence[Cell], by: By, code: str) -> Iterator[Row]:
    shifts = sorted({shift for cell in group for shift in cell.shifts})
    records = load_records(group) if group[0].manifest.status == "complete" else None
    if by == "dataset":
        yield _row(group, shifts, summarise(records) if records else None, code)
        return
    for shift in sorted(records.shifts) if records else shifts:
        here = [cell for cell in group if shift in cell.shifts] or group
        yield _row(here, [shift], summarise(records.of_shift(shift)) if records else None, code)


def _row(cells: Sequence[Cell], shifts: Sequence[str], numbers: Mapping[str, Any] | None, code: str) -> Row:
    manifest, dataset = cells[0].manifest, cells[0].fact("dataset")
    columns = manifest.columns
    values: dict[str, Any] = dict(numbers or {})
    init_ms = [cell.manifest.init_ms for cell in cells if cell.manifest.init_ms is not None]
    values.update(
        method=cells[0].fact("method"),
        variant=",".join(part for part in (manifest.notes.get("variant"), code) if part),
        category=_text(manifest.notes.get("category")),
        model=cells[0].fact("model"),
        dataset=dataset,
        shifts=";".join(shift.removeprefix(f"{dataset}:") for shift in shifts),
        seeds=_joined(cell.seed for cell in cells),
        init_ms=fmean(sorted(init_ms)) if init_ms else None,
        batch_size=columns.get("batch_size"),
        reset=_text(columns.get("reset")),
        sees=_sees(cells[0]),
        severity=_joined(_severities(cells)),
        precision=_text(manifest.comparable.get("precision")),
        device=_text(manifest.comparable.get("device")),
        machine=_joined(_machine(cell) for cell in cells),
        weights=cells[0].fact("weights_sha256")[:8],
        preprocessing=_text(columns.get("preprocessing")),
        prompt_set=_text(manifest.notes.get("prompt_set")),
        prompts=_text(columns.get("prompts")),
        source_data=_text(columns.get("source_data")),
        hyperparameters_chosen=_text(columns.get("hyperparameters_chosen")),
        protocol=digest(sorted(canonical(cell.manifest.comparable) for cell in cells), 8),
        status=manifest.status,
        demonstration=any(_demonstration(cell) for cell in cells),
        mixed=False,
    )
    return Row(**values)


def _severities(cells: Iterable[Cell]) -> Iterator[object]:
    for cell in cells:
        value = cell.manifest.comparable.get("severity")
        yield from value if isinstance(value, (list, tuple)) else [value]


def _joined(values: Iterable[object]) -> str:
    distinct = {value for value in values if value is not None}
    return ";".join(str(value) for value in sorted(distinct, key=lambda value: (len(str(value)), str(value))))


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else canonical(value)


def _sees(cell: Cell) -> str:
    told = cell.manifest.notes.get("sees")
    if told in ("image", "batch"):
        return str(told)
    reset, size = cell.manifest.columns.get("reset"), cell.manifest.columns.get("batch_size")
    alone = reset == "image" or (reset == "batch" and size == 1) or cell.fact("method") == SOURCE
    return "image" if alone else "batch"


def _machine(cell: Cell) -> str:
    facts = cell.manifest.machine
    threads = f"{facts['threads']} threads" if "threads" in facts else ""
    torch = f"torch {facts['torch_build']}" if "torch_build" in facts else ""
    return ", ".join(part for part in (str(facts.get("device_name", "")), threads, torch) if part)


def _demonstration(cell: Cell) -> bool:
    notes = cell.manifest.notes
    return bool(notes.get("demonstration") or notes.get("random_weights"))


def _row_conflicts(rows: Sequence[Row], by: By) -> list[Conflict]:
    seen: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        if row.accuracy is None:
            continue
        shift = row.shifts if by == "shift" else ""
        for fact, value in (("shifts", row.shifts), ("images", str(row.images))):
            told = seen.setdefault((row.dataset, shift, fact), {})
            told[value] = min(told.get(value, row.method), row.method)
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
    """Return the order of rows within a block: the source model, or what predicts as it does, then by accuracy."""

    def block(row: Row) -> tuple[str, ...]:
        return (row.dataset, row.shifts if by == "shift" else "", row.model)

    with_source = {block(row) for row in rows if row.method == SOURCE}

    def rank(row: Row) -> tuple[Any, ...]:
        stands_in = block(row) not in with_source and row.gain_low == row.gain_high == 0
        below = row.accuracy is None, -(row.accuracy or 0.0)
        return (
            *block(row), not (row.method == SOURCE or stands_in), *below, row.method, row.variant,
            tuple(map(str, vars(row).values())),
        )  # fmt: skip

    return rank
