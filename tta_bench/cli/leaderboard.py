# SPDX-License-Identifier: Apache-2.0
"""``tta-bench leaderboard``: one CSV from any number of run folders."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

INCOMPLETE = 1


class By(StrEnum):
    """Units that one row aggregates."""

    dataset = "dataset"
    shift = "shift"


def leaderboard(
    folders: Annotated[list[str], typer.Argument(help="Run folders: paths or URLs.")],
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Where to write the table: a .csv, .md, .json or .parquet file."),
    ] = "leaderboard.csv",
    by: Annotated[By, typer.Option("--by", help="One row per dataset, or per shift.")] = By.dataset,
    allow_mixed: Annotated[
        bool,
        typer.Option("--allow-mixed", help="Mark rows whose protocol facts differ instead of refusing them."),
    ] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            help="Only cells or rows of which this is true: method=tent,eata, shift=*:fog:*, gain>0; repeat for all.",
        ),
    ] = None,
    sort: Annotated[
        str,
        typer.Option("--sort", help="Column to sort by, e.g. gain or ms_p50; -gain turns the order round."),
    ] = "",
    require_complete: Annotated[
        bool, typer.Option("--require-complete", help="Exit code 1 if planned cells are missing.")
    ] = False,
) -> None:
    """Write a leaderboard from run folders, and print it as a table; rows without all their cells stand last."""
    from tta_bench.reports.leaderboard import board
    from tta_bench.reports.progress import say
    from tta_bench.reports.select import sorted_rows
    from tta_bench.reports.table import print_table
    from tta_bench.reports.table_files import check_suffix, write_table
    from tta_bench.reports.text import counted, report_console

    check_suffix(output)
    found = board(folders, by=by.value, allow_mixed=allow_mixed, where=where or ())
    rows = sorted_rows(found.rows, sort) if sort else found.rows
    write_table(rows, output)
    console = report_console()
    print_table(rows, console)
    for sentence in found.missing:
        say(console, sentence, style="yellow")
    say(console, f"Written: {output} ({counted(len(rows), 'row')})")
    if found.missing and require_complete:
        raise typer.Exit(INCOMPLETE)
