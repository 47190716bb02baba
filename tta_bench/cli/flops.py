# SPDX-License-Identifier: Apache-2.0
"""The table behind ``tta-bench run --flops``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from tta_bench.engine.flops import PartCost
    from tta_bench.engine.objects import Objects
    from tta_bench.spec import Cell


def print_flops(console: Console, cells: Sequence[Cell], objects: Objects) -> bool:
    """Print the cost of adapting to one image for each method and model; return whether all were counted."""
    from tta_bench.engine.flops import step_costs
    from tta_bench.registry import FAILURES, brief
    from tta_bench.reports.progress import say

    whole = True
    for cell in {(cell.method, cell.model): cell for cell in cells}.values():
        title = f"{cell.method} · {cell.model}"
        try:
            costs = step_costs(objects.method(cell), objects.model(cell))
        except FAILURES as error:
            whole = False
            say(console, f"\n{title}: FLOPs are unavailable: {brief(error)}", style="red")
        else:
            _show(console, title, costs)
    return whole


def _show(console: Console, title: str, rows: Sequence[PartCost]) -> None:
    from rich.table import Table

    heading = f"\n{title}: multiply-adds per image, products alone"
    table = Table(title=heading, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("part")
    for name in ("times", "counted", "by formula", "difference", "moved MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        both = row.counted and row.formula
        difference = f"{100 * (row.formula / row.counted - 1):+.2f}%" if both else "-"  # type: ignore[operator]
        moved = "-" if row.moved_mib is None else f"{row.moved_mib:,.1f}"
        table.add_row(
            row.part, str(row.times), _million(row.counted), _million(row.formula), difference, moved
        )
    console.print(table)


def _million(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.2f} M"
