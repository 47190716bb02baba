# SPDX-License-Identifier: Apache-2.0
"""Compare two runs and print it: first the facts that differ, then the numbers."""

from __future__ import annotations

from collections.abc import Sequence

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
    console.print(_numbers(comparison.rows, sign))
    for line in _footer(comparison):
        console.print(Text(line, style="dim"))


def _numbers(rows: Sequence[ComparedRow], sign: Signs) -> Table:
    table = _table(
        ("compared", "first\n%", "second\n%", "second - first\npoints", "p", "p\nHolm", "images"), 6
    )
    for row in rows:
        what = "\n".join(
            part for part in (row.method, f"  {row.model}", f"  {row.shift or _mean(row)}") if part
        )
        table.add_row(
            Text(what),
            percent(row.accuracy_first, None, None, sign, signed=False),
            percent(row.accuracy_second, None, None, sign, signed=False),
            percent(row.difference.value, row.difference.low, row.difference.high, sign, signed=True),
            _p(row.p, sign),
            _p(row.p_holm, sign),
            _images(row),
        )
    return table


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


def _footer(comparison: Comparison) -> list[str]:
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
    return lines
