# SPDX-License-Identifier: Apache-2.0
"""``tta-bench sweep``: one or several methods under every point of a grid of hyper-parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tta_bench.cli.options import with_run_options
from tta_bench.cli.run import _asked, _report, _to_the_end

FAILED = 1


@with_run_options
def sweep(
    given: dict[str, Any],
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, help="Random points of the grid; default: all of them.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file with these options; the command line wins.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells and stop.")] = False,
) -> None:
    """Run a grid of hyper-parameters: --set alpha=1,2,3 --set beta=3,5 has six points.

    Its cells are marked as tuned on the test labels, and the table says how often these were looked at. Features are
    encoded once, and points that differ only in how scores are made share one pass over the stream.
    """
    from tta_bench.names import check_request

    request, controls = _asked(given, config, None)
    check_request(request)
    from tta_bench.engine.objects import Objects
    from tta_bench.engine.sweeping import TUNED, plan_sweep
    from tta_bench.reports.progress import say
    from tta_bench.reports.text import report_console

    console = report_console()
    planned = plan_sweep(request, sample)
    say(console, f"tta-bench: {planned.points} points, {len(planned.cells)} cells")
    if dry_run:
        for cell in planned.cells:
            say(console, cell.label)
        return
    ran = _to_the_end(console, planned.cells, request, controls, Objects(workers=request.workers))
    _report(console, controls.output, ran)
    if planned.cells[0].chosen == TUNED:
        say(
            console,
            f"The test labels were looked at {planned.points} times: the best of so many settings says less of new "
            "data than a published setting does; choose on other data and run that setting with --chosen held-out.",
        )
    if any(one.status == "failed" for one in ran.ended):
        raise typer.Exit(FAILED)
