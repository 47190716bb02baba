# SPDX-License-Identifier: Apache-2.0
"""``tta-bench leaderboard``: one CSV from any number of run folders."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class By(StrEnum):
    """Units that one row aggregates."""

    dataset = "dataset"
    shift = "shift"


def leaderboard(
    folders: Annotated[list[str], typer.Argument(help="Run folders: paths or URLs.")],
    output: Annotated[str, typer.Option("--output", help="Where to write the table.")] = "leaderboard.csv",
    by: Annotated[By, typer.Option("--by", help="One row per dataset, or per shift.")] = By.dataset,
    allow_mixed: Annotated[
        bool,
        typer.Option("--allow-mixed", help="Mark rows whose protocol facts differ instead of refusing them."),
    ] = False,
) -> None:
    """Write leaderboard.csv from run folders, and print it as a table."""
    from tta_bench.reports.leaderboard import leaderboard as build
    from tta_bench.reports.leaderboard import write_csv
    from tta_bench.reports.table import print_table
    from tta_bench.reports.text import report_console

    rows = build(folders, by=by.value, allow_mixed=allow_mixed)
    write_csv(rows, output)
    console = report_console()
    print_table(rows, console)
    console.print(f"Written: {output} ({len(rows)} rows)", markup=False, highlight=False)
