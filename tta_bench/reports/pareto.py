# SPDX-License-Identifier: Apache-2.0
"""Which rows of a table nobody would rather have another for: the Pareto set of accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tta_bench.reports.columns import Row
from tta_bench.reports.table import NOISY_MARK, clock
from tta_bench.reports.text import Signs, measured, percent, signs

Cost = Literal["time", "memory"]
COLUMN: dict[Cost, str] = {"time": "ms_p50", "memory": "peak_mib"}


class Front(NamedTuple):
    """The rows of one dataset, machine and way of seeing images that no other row beats.

    Attributes:
        dataset: Of the rows.
        machine: On which their costs were measured.
        alone: Whether only methods are meant that see one image at a time; else those that need batches too.
        rows: By falling accuracy, and so by falling cost.
        beaten: How many rows another one beats: at least as accurate and as cheap, and better in one of the two.
        unknown: How many rows have no cost.
    """

    dataset: str
    machine: str
    alone: bool
    rows: tuple[Row, ...]
    beaten: int
    unknown: int


def fronts(rows: Sequence[Row], cost: Cost = "time") -> list[Front]:
    """Return the Pareto sets of a table: for images that come one at a time, and where they come in batches.

    Args:
        rows: Of a leaderboard.
        cost: Which cost counts.
    """
    found = []
    complete = [row for row in rows if row.status == "complete" and not row.mixed]
    for dataset, machine in dict.fromkeys((row.dataset, row.machine) for row in complete):
        here = [row for row in complete if (row.dataset, row.machine) == (dataset, machine)]
        single = [row for row in here if row.sees == "image"]
        batched = len(single) < len(here)
        groups = [(True, single)] if len(single) > 1 or not batched else []
        groups += [(False, here)] if batched else []
        for alone, group in groups:
            known = [row for row in group if getattr(row, COLUMN[cost]) is not None]
            kept = _unbeaten(known, COLUMN[cost])
            if kept:
                found.append(
                    Front(dataset, machine, alone, kept, len(known) - len(kept), len(group) - len(known))
                )
    return found


def _unbeaten(rows: Sequence[Row], column: str) -> tuple[Row, ...]:
    ranked = sorted(rows, key=lambda row: (-(row.accuracy or 0.0), getattr(row, column)))
    kept: list[Row] = []
    for row in ranked:
        if not kept or getattr(row, column) < getattr(kept[-1], column):
            kept.append(row)
    return tuple(kept)


def print_fronts(found: Sequence[Front], cost: Cost, console: Console) -> None:
    """Print Pareto sets, one table each.

    Args:
        found: The sets.
        cost: Which cost counted.
        console: Where to print.
    """
    sign = signs(console)
    for front in found:
        what = "one image at a time" if front.alone else "images in batches"
        console.print(Text(f"{front.dataset}, {what}, on {front.machine}", style="bold"))
        console.print(_table(front, sign))
        for line in _footer(front, cost):
            console.print(Text(line, style="dim"))
        console.print()
    if not found:
        console.print(Text(f"No finished cell with a {cost} to report."))


def _table(front: Front, sign: Signs) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("method", "model"):
        table.add_column(title, overflow="fold")
    for title in ("accuracy\n%", "vs source\npoints", "ms/image\np50@batch", "peak\nMiB"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in front.rows:
        name = f"{row.method} ({row.variant.replace(',', ', ')})" if row.variant else row.method
        accuracy = percent(row.accuracy, row.accuracy_low, row.accuracy_high, sign, signed=False)
        gain = percent(row.gain, row.gain_low, row.gain_high, sign, signed=True)
        cells = (name, row.model, accuracy, gain, clock(row, sign), measured(row.peak_mib, sign))
        table.add_row(*map(Text, cells))
    return table


def _footer(front: Front, cost: Cost) -> list[str]:
    lines = []
    if front.beaten:
        rows = "1 other row is" if front.beaten == 1 else f"{front.beaten} other rows are"
        lines.append(f"{rows} no more accurate than one of these and cost as much {cost} or more.")
    if front.unknown:
        lines.append(f"{front.unknown} more without a measured {cost} left out.")
    if any(row.noisy for row in front.rows):
        lines.append(f"{NOISY_MARK} other work kept the machine busy; --remeasure times these again.")
    return lines
