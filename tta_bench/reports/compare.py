# SPDX-License-Identifier: Apache-2.0
"""Compare two runs and print it: first the facts that differ, then the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tta_bench.reports.pairing import ComparedRow, Comparison, FactDifference, compare
from tta_bench.reports.text import Signs, percent, signs

__all__ = ["ComparedRow", "Comparison", "FactDifference", "compare", "print_comparison", "print_facts"]


def print_facts(facts: Sequence[FactDifference], console: Console) -> None:
    """Print the protocol facts that differ between two sides, comparable facts first."""
    if not facts:
        console.print(Text("No protocol fact differs."))
        return
    table = _table(("fact", "kind", "first", "second"), numbers=0)
    for fact in facts:
        table.add_row(*map(Text, fact), style="bold" if fact.kind == "comparable" else "")
    console.print(table)
    if any(fact.kind == "comparable" for fact in facts):
        console.print(Text("Comparable facts differ: the accuracies below do not answer the same question."))


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the facts that differ, then the accuracies of both sides on their common images.

    Args:
        comparison: What `compare` returned.
        console: Where to print; see `tta_bench.reports.text.report_console`.
    """
    sign = signs(console)
    console.print(Text(f"first  {comparison.first}\nsecond {comparison.second}", style="bold"))
    print_facts(comparison.facts, console)
    console.print()
    table, left_out = _numbers(comparison.rows, sign, console.width)
    console.print(table)
    for line in _footer(comparison, left_out):
        console.print(Text(line, style="dim"))


class _Number(NamedTuple):
    title: str
    tell: Callable[[ComparedRow, Signs], str]


_NUMBERS = (  # where the width is short the last of them are left out first
    _Number("second - first\npoints", lambda row, sign: percent(*row.difference, sign, signed=True)),
    _Number("p\nHolm", lambda row, sign: _p(row.p_holm, sign)),
    _Number("first\n%", lambda row, sign: percent(row.accuracy_first, None, None, sign, signed=False)),
    _Number("second\n%", lambda row, sign: percent(row.accuracy_second, None, None, sign, signed=False)),
    _Number("images", lambda row, sign: _images(row)),
    _Number("p", lambda row, sign: _p(row.p, sign)),
)
_LEAST_NAME = 24


def _numbers(rows: Sequence[ComparedRow], sign: Signs, width: int) -> tuple[Table, list[str]]:
    """Return the table at a width, and the titles of what did not fit."""
    shown = list(_NUMBERS)
    while len(shown) > 1 and _LEAST_NAME + sum(2 + _natural(one, rows, sign) for one in shown) > width:
        shown.pop()
    table = _table(("compared", *(one.title for one in shown)), len(shown))
    for row in rows:
        what = "\n".join(
            part for part in (row.method, f"  {row.model}", f"  {row.shift or _mean(row)}") if part
        )
        table.add_row(Text(what), *(one.tell(row, sign) for one in shown))
    return table, [one.title.replace("\n", " ") for one in _NUMBERS[len(shown) :]]


def _natural(number: _Number, rows: Sequence[ComparedRow], sign: Signs) -> int:
    cells = [number.title, *(number.tell(row, sign) for row in rows)]
    return max(len(line) for cell in cells for line in cell.split("\n"))


def _mean(row: ComparedRow) -> str:
    return f"{row.dataset}, mean over shifts"


def _images(row: ComparedRow) -> str:
    if row.common == row.images_first == row.images_second:
        return str(row.common)
    return f"{row.common} common\nof {row.images_first}, {row.images_second}"


def _p(value: float | None, sign: Signs) -> str:
    if value is None:
        return sign.none
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _table(titles: Sequence[str], numbers: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, title in enumerate(titles):
        number = place >= len(titles) - numbers
        table.add_column(title, justify="right" if number else "left", no_wrap=number, overflow="fold")
    return table


def _footer(comparison: Comparison, left_out: Sequence[str]) -> list[str]:
    lines = ["Intervals are 95%, from a paired bootstrap over images; p is McNemar's mid-p."]
    if any(not row.common == row.images_first == row.images_second for row in comparison.rows):
        lines.append("The sides hold different images: all numbers are about the common ones.")
    apart = (
        ("Only in the first", comparison.only_first),
        ("Only in the second", comparison.only_second),
        ("No image in common", comparison.disjoint),
    )
    for what, names in apart:
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"{what}: {', '.join(names[:3])}{more}.")
    if left_out:
        lines.append(f"Left out at this width: {', '.join(left_out)}.")
    return lines
