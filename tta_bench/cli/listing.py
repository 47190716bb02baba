# SPDX-License-Identifier: Apache-2.0
"""``tta-bench list``: list what is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tta_bench.cli.plugin import Plugins, methods_of_files

if TYPE_CHECKING:
    from tta_bench.method import Method


class Kind(StrEnum):
    """Kinds of names to list."""

    methods = "methods"
    datasets = "datasets"
    models = "models"
    suites = "suites"
    prompts = "prompts"
    runs = "runs"
    cells = "cells"


NEXT = {
    Kind.methods: "tta-bench describe",
    Kind.datasets: "tta-bench run --method source --dataset",
    Kind.suites: "tta-bench run --suite",
    Kind.prompts: "tta-bench run --method clip --dataset pocket --prompts",
}
"""The command to run next, by kind."""


STORED = (Kind.runs, Kind.cells)
"""Kinds that lie in folders."""


def list_names(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    places: Annotated[
        list[str] | None,
        typer.Argument(
            help="For runs: folders to look through, by default this one; for cells: run folders."
        ),
    ] = None,
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
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where", help="Only cells of which this is true: status=failed, seed>0; repeat for all."
        ),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """List the installed methods, datasets, models, suites or prompt templates, or the runs and cells of folders."""
    if kind in STORED:
        _list_stored(kind, places or [], where or [], as_csv)
        return
    if places or where:
        from tta_bench.errors import BadInputError

        raise BadInputError(
            f"only runs and cells lie in folders, got {kind.value}; leave folders and --where out"
        )
    own = methods_of_files(plugin)
    named = {Kind.suites: _suites, Kind.prompts: _prompts}
    rows: list[tuple[str, ...]] = [*(named[kind]() if kind in named else _registered(kind))]
    if kind is Kind.methods:
        rows = sorted([*rows, *((name, _first_line(cls), "--plugin") for name, cls in own.items())])
    if no_gradients or category or needs:
        rows = _filtered(kind, rows, own, no_gradients=no_gradients, category=category, needs=needs or [])
    parity = ("parity",) if kind is Kind.methods else ()
    if kind is Kind.methods:
        from tta_bench.parity.status import label

        rows = [(*row, label(row[0])) for row in rows]
    _show((kind.value[:-1], "what it is", "package", *parity), rows, as_csv, csv_names={
        kind.value[:-1]: "name", "what it is": "summary"
    })  # fmt: skip
    if kind in NEXT and not as_csv:
        from tta_bench.reports.text import report_console

        example = rows[0][0] if rows else "NAME"
        report_console().print(f"\n{NEXT[kind]} {example}", style="dim", highlight=False)


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").partition("\n")[0]


def _list_stored(kind: Kind, places: list[str], where: list[str], as_csv: bool) -> None:
    """List run folders, or the cells of run folders."""
    from tta_bench.errors import BadInputError
    from tta_bench.reports.inventory import CellLine, RunLine, cell_lines, run_lines
    from tta_bench.reports.select import parse_where

    if kind is Kind.runs:
        if where:
            raise BadInputError("--where chooses cells, got runs; leave it out, or list cells")
        _show(RunLine._fields, [*run_lines(places or ["."])], as_csv)
        return
    lines = cell_lines(places or ["runs"], parse_where(where))
    single = len({line.run for line in lines if line.run}) < 2
    fields = CellLine._fields[:-1] if single and not as_csv else CellLine._fields
    _show(fields, [tuple(line[: len(fields)]) for line in lines], as_csv)


def _show(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    as_csv: bool,
    csv_names: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Print rows as a table, or as CSV."""
    import csv
    import sys

    if as_csv:
        from tta_bench.spec.texts import spreadsheet_row

        head = [csv_names.get(title, title) for title in titles]
        csv.writer(sys.stdout).writerows(map(spreadsheet_row, [head, *rows]))
        return
    from rich.table import Table

    from tta_bench.reports.text import report_console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, title in enumerate(titles):
        whole = place == 0 or title in ("package", "parity", "status", "seed", "images", "cells")
        style = "cyan" if place == 0 else "dim" if title == "package" else None
        table.add_column(title, no_wrap=whole, style=style, overflow="fold")
    for row in rows:
        table.add_row(*row)
    report_console().print(table)


def _registered(kind: Kind) -> list[tuple[str, str, str]]:
    """Return name, summary and package of what the entry points of a group name."""
    from tta_bench import registry

    group: Any = kind.value
    points = registry.registered(group)
    return [(name, _summary(kind, name), registry.owner(point)) for name, point in points.items()]


def _filtered(
    kind: Kind,
    rows: list[tuple[str, ...]],
    own: Mapping[str, type[Method]],
    *,
    no_gradients: bool,
    category: str,
    needs: list[str],
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
        card = (own[name] if name in own else registry.load("methods", name)).card
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

    group: Any = kind.value
    point = registry.registered(group)[name]
    if kind is Kind.datasets and registry.built_in(point):
        from tta_bench.data.dataset import Dataset

        found = registry.load("datasets", name)
        return found.title if isinstance(found, Dataset) else (found.__doc__ or "").partition("\n")[0]
    return registry.summary(point)
