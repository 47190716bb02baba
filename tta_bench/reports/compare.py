# SPDX-License-Identifier: Apache-2.0
"""Compare two runs and print it: first the facts that differ, then the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tta_bench.reports.paired import ComparedRow
from tta_bench.reports.pairing import Comparison, FactDifference, compare
from tta_bench.reports.text import Signs, percent, signs

__all__ = ["ComparedRow", "Comparison", "FactDifference", "compare", "print_comparison", "print_facts"]


def print_facts(
    facts: Sequence[FactDifference], console: Console, sides: tuple[str, str] = ("first", "second")
) -> None:
    """Print the protocol facts that differ between two sides, comparable facts first."""
    if not facts:
        console.print(Text("No protocol fact differs."))
        return
    table = _table(("fact", "kind", *sides), numbers=0)
    for fact in facts:
        table.add_row(*map(Text, fact), style="bold" if fact.kind == "comparable" else "")
    console.print(table)
    if any(fact.kind == "comparable" for fact in facts):
        console.print(Text("Comparable facts differ: the accuracies below do not answer the same question."))


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the facts that differ, then the accuracies of both sides on their common images.

    Args:
        comparison: What `compare` or `tta_bench.reports.versus.compare_methods` returned.
        console: Where to print; see `tta_bench.reports.text.report_console`.
    """
    sign = signs(console)
    if not comparison.methods:
        console.print(Text(f"first  {comparison.first}\nsecond {comparison.second}", style="bold"))
    if comparison.facts or not comparison.methods:
        print_facts(comparison.facts, console, _sides(comparison))
        console.print()
    table, left_out = _numbers(comparison, sign, console.width)
    console.print(table)
    for line in _footer(comparison, left_out):
        console.print(Text(line, style="dim"))


class _Number(NamedTuple):
    title: str
    tell: Callable[[ComparedRow, Signs], str]


def _columns(comparison: Comparison) -> tuple[_Number, ...]:
    """Return the columns of numbers; where the width is short the last of them are left out first."""
    first, second = _sides(comparison)
    return (
        _Number(f"{second} - {first}\npoints", lambda row, sign: percent(*row.difference, sign, signed=True)),
        _Number("p\nHolm", lambda row, sign: _p(row.p_holm)),
        _Number(f"{first}\n%", lambda row, sign: percent(row.accuracy_first, None, None, sign, signed=False)),
        _Number(
            f"{second}\n%", lambda row, sign: percent(row.accuracy_second, None, None, sign, signed=False)
        ),
        _Number("images", lambda row, sign: _images(row)),
        _Number("p", lambda row, sign: _p(row.p)),
    )


def _sides(comparison: Comparison) -> tuple[str, str]:
    """Return what the two sides are called above the numbers."""
    if not comparison.methods:
        return "first", "second"
    names = [comparison.first, comparison.second]
    if max(map(len, names)) > _LONGEST_NAME or len({row.method for row in comparison.rows}) > 1:
        return "baseline", "method"
    return names[0], names[1]


_LEAST_NAME = 24
_LONGEST_NAME = 12


def _numbers(comparison: Comparison, sign: Signs, width: int) -> tuple[Table, list[str]]:
    """Return the table at a width, and the titles of what did not fit."""
    every, rows = _columns(comparison), comparison.rows
    shown = list(every)
    while len(shown) > 1 and _LEAST_NAME + sum(2 + _natural(one, rows, sign) for one in shown) > width:
        shown.pop()
    table = _table(("compared", *(one.title for one in shown)), len(shown))
    above = "", ""
    for row in rows:
        if (row.method, row.model) != above:
            for name in filter(None, (row.method, f"  {row.model}")):
                table.add_row(Text(name))
        above = row.method, row.model
        table.add_row(Text(f"  {row.shift or 'mean over shifts'}"), *(one.tell(row, sign) for one in shown))
    return table, [one.title.replace("\n", " ") for one in every[len(shown) :]]


def _natural(number: _Number, rows: Sequence[ComparedRow], sign: Signs) -> int:
    cells = [number.title, *(number.tell(row, sign) for row in rows)]
    return max(len(line) for cell in cells for line in cell.split("\n"))


def _images(row: ComparedRow) -> str:
    if row.common == row.images_first == row.images_second:
        return str(row.common)
    return f"{row.common} common\nof {row.images_first}, {row.images_second}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _table(titles: Sequence[str], numbers: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, title in enumerate(titles):
        number = place >= len(titles) - numbers
        table.add_column(title, justify="right" if number else "left", no_wrap=number, overflow="fold")
    return table


def _footer(comparison: Comparison, left_out: Sequence[str]) -> list[str]:
    tests = len(comparison.rows)
    lines = [
        "Intervals are 95%, from a paired bootstrap over images. p is the mid-p of the sign-flip test over images, "
        "which is McNemar's for one shift and seed"
        + (f"; Holm's adjusts it for all {tests} tests." if tests > 1 else ".")
    ]
    if any(not row.common == row.images_first == row.images_second for row in comparison.rows):
        lines.append(
            "The sides hold different images: all numbers are about the common ones, which a method that learns on the "
            "way met in another stream."
        )
    sides = (comparison.first, "the others") if comparison.methods else ("the first", "the second")
    apart = (
        (f"Only in {sides[0]}", comparison.only_first),
        (f"Only in {sides[1]}", comparison.only_second),
        ("No image in common", comparison.disjoint),
    )
    for what, names in apart:
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"{what}: {', '.join(names[:3])}{more}.")
    if left_out:
        lines.append(f"Left out at this width: {', '.join(left_out)}.")
    return lines
