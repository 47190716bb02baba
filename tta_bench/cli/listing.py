# SPDX-License-Identifier: Apache-2.0
"""``tta-bench list``: list what is installed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """Kinds of names to list."""

    methods = "methods"
    datasets = "datasets"
    models = "models"
    suites = "suites"
    prompts = "prompts"


NEXT = {
    Kind.methods: "tta-bench describe",
    Kind.datasets: "tta-bench run --method source --dataset",
    Kind.suites: "tta-bench run --suite",
    Kind.prompts: "tta-bench run --method clip --dataset pocket --prompts",
}
"""The command to run next, by kind."""


def list_names(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print comma-separated values instead of a table.")
    ] = False,
    no_gradients: Annotated[
        bool,
        typer.Option(
            "--no-gradients", help="Only methods that need no gradients, e.g. for quantised models."
        ),
    ] = False,
    category: Annotated[
        str, typer.Option("--category", help="Only methods that are episodic, online or transductive.")
    ] = "",
    needs: Annotated[
        list[str] | None,
        typer.Option("--needs", help="Only methods that need this, e.g. views or text; repeat for several."),
    ] = None,
) -> None:
    """List the installed methods, datasets, model families, suites or prompt templates with one line each."""
    import csv
    import sys

    from tta_bench.spec.texts import spreadsheet_row

    own = {Kind.suites: _suites, Kind.prompts: _prompts}
    rows: list[tuple[str, ...]] = [*(own[kind]() if kind in own else _registered(kind))]
    if no_gradients or category or needs:
        rows = _filtered(kind, rows, no_gradients=no_gradients, category=category, needs=needs or [])
    parity = ("parity",) if kind is Kind.methods else ()
    if kind is Kind.methods:
        from tta_bench.parity.status import label

        rows = [(*row, label(row[0])) for row in rows]
    if as_csv:
        head = ("name", "summary", "package", *parity)
        csv.writer(sys.stdout).writerows(map(spreadsheet_row, [head, *rows]))
        return
    from rich.table import Table

    from tta_bench.reports.text import report_console

    console = report_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(kind.value[:-1], no_wrap=True, style="cyan")
    table.add_column("what it is", overflow="fold")
    table.add_column("package", no_wrap=True, style="dim")
    for heading in parity:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if kind in NEXT:
        example = rows[0][0] if rows else "NAME"
        console.print(f"\n{NEXT[kind]} {example}", style="dim", highlight=False)


def _registered(kind: Kind) -> list[tuple[str, str, str]]:
    """Return name, summary and package of what the entry points of a group name."""
    from tta_bench import registry

    points = registry.registered(kind.value)
    return [(name, _summary(kind, name), registry.owner(point)) for name, point in points.items()]


def _filtered(
    kind: Kind, rows: list[tuple[str, ...]], *, no_gradients: bool, category: str, needs: list[str]
) -> list[tuple[str, ...]]:
    """Return the rows of the methods whose cards say what is asked for; the methods are imported for it."""
    from typing import get_args

    from tta_bench import registry
    from tta_bench.errors import BadInputError, UnknownNameError
    from tta_bench.method import Category, Need

    if kind is not Kind.methods:
        raise BadInputError(
            f"--no-gradients, --category and --needs apply to methods only, got {kind.value}; leave them out"
        )
    if category and category not in get_args(Category):
        raise UnknownNameError("category", category, get_args(Category))
    for need in needs:
        if need not in ("views", *get_args(Need)):
            raise UnknownNameError("need", need, ("views", *get_args(Need)))

    def wanted(name: str) -> bool:
        card = registry.load("methods", name).card
        has = card.needs | ({"views"} if card.views else set())
        return (
            has >= set(needs)
            and category in ("", card.category)
            and not (no_gradients and "gradients" in has)
        )

    return [row for row in rows if wanted(row[0])]


def _suites() -> list[tuple[str, str, str]]:
    """Return name, title with version, and package of the suites."""
    from tta_bench.suites import load_suite, suite_names

    suites = [load_suite(name) for name in suite_names()]
    return [(suite.name, f"{suite.title}; version {suite.version}", "tta-bench") for suite in suites]


def _prompts() -> list[tuple[str, str, str]]:
    """Return name, first template with the number of all and their source, and package of the prompt sets."""
    from tta_bench.prompts import named, prompt_names

    sets = [named(name) for name in prompt_names()]
    counts = [f"{len(one.templates)} templates" if len(one.templates) > 1 else "1 template" for one in sets]
    return [
        (one.name, f"{count}, {one.templates[0]!r}; {one.source}", "tta-bench")
        for one, count in zip(sets, counts, strict=True)
    ]


def _summary(kind: Kind, name: str) -> str:
    from tta_bench import registry

    point = registry.registered(kind.value)[name]
    if kind is Kind.datasets and registry.built_in(point):
        from tta_bench.data.dataset import Dataset

        found = registry.load("datasets", name)
        return found.title if isinstance(found, Dataset) else (found.__doc__ or "").partition("\n")[0]
    return registry.summary(point)
