# SPDX-License-Identifier: Apache-2.0
"""``tta-bench parity``: replay golden vectors of the published references."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from tta_bench.parity.result import CaseResult


def parity(
    folder: Annotated[
        Path, typer.Argument(help="Golden folder with a manifest.json, or a folder of such folders.")
    ],
    method: Annotated[
        str | None, typer.Option("--method", help="Replay only this golden method or corruption.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option("--record", help="Write the status of each method, as `list` shows it, to this file."),
    ] = None,
) -> None:
    """Replay golden vectors through the public methods and print the largest deviation of each case."""
    from tta_bench.parity.judge import was_replayed
    from tta_bench.parity.replay import replay
    from tta_bench.reports.text import report_console

    console = report_console(plain_width=160)
    results = list(replay(folder, method))
    replayed = [result for result in results if was_replayed(result)]
    passed = sum(result.passed for result in replayed)
    if results:
        console.print(_table(results))
    elif method:
        console.print(f"no golden case of {method} in {folder}", markup=False)
    if record is not None:
        from tta_bench.engine.machine import numerics
        from tta_bench.parity.record import write_status

        write_status(results, record, numerics())
    console.print(
        f"{passed} passed, {len(replayed) - passed} failed, {len(results) - len(replayed)} not replayed"
    )
    if passed == 0 or passed < len(replayed):
        raise typer.Exit(1)


def _table(results: list[CaseResult]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from tta_bench.parity.judge import was_replayed

    table = Table(box=None, pad_edge=False)
    for heading in ("family", "method", "case"):
        table.add_column(heading, no_wrap=True)
    for heading in ("deviation", "tolerance"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("note", style="dim")
    for result in results:
        figures = (
            (f"{result.deviation:.2g}", f"{result.tolerance:.2g}") if was_replayed(result) else ("-", "-")
        )
        verdict = Text("passed", "green") if result.passed else Text("failed", "red")
        if not was_replayed(result):
            verdict = Text("not replayed", "yellow")
        table.add_row(result.family, result.method, result.case, *figures, verdict, result.note)
    return table
