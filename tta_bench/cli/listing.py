# SPDX-License-Identifier: Apache-2.0
"""``tta-bench list``: what is installed, without importing any of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    datasets = "datasets"
    models = "models"


def list_names(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print comma-separated values instead of a table.")
    ] = False,
) -> None:
    """List the installed methods, datasets or model families with one line each."""
    import csv
    import sys

    from tta_bench import registry

    rows = [
        (name, _summary(kind, name), registry.owner(p)) for name, p in registry.registered(kind.value).items()
    ]
    if as_csv:
        csv.writer(sys.stdout).writerows([("name", "summary", "package"), *rows])
        return
    from rich.table import Table

    from tta_bench.reports.text import report_console

    console = report_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(kind.value[:-1], no_wrap=True, style="cyan")
    table.add_column("what it is", overflow="fold")
    table.add_column("package", no_wrap=True, style="dim")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if kind is not Kind.models:
        example = rows[0][0] if rows else "NAME"
        detail = "tta-bench describe" if kind is Kind.methods else "tta-bench run --method source --dataset"
        console.print(f"\n{detail} {example}", style="dim", highlight=False)


def _summary(kind: Kind, name: str) -> str:
    from tta_bench import registry

    if kind is Kind.datasets:
        from tta_bench.data.facts import Dataset

        found = registry.load("datasets", name)
        return found.title if isinstance(found, Dataset) else (found.__doc__ or "").partition("\n")[0]
    return registry.summary(registry.registered(kind.value)[name])
