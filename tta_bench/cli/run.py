# SPDX-License-Identifier: Apache-2.0
"""``tta-bench run``: from names on the command line to a table and the files behind it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tta_bench.cli.completion import COMPLETE
from tta_bench.cli.ending import exit_code, say_on_stderr
from tta_bench.cli.options import with_run_options
from tta_bench.errors import TTABenchError
from tta_bench.spec import Controls, Request, make_request, merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from tta_bench.api import Ran
    from tta_bench.engine.objects import Objects
    from tta_bench.spec import Cell

FAILED = 1


@with_run_options
def run(
    given: dict[str, Any],
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file with these options; the command line wins.")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            help="Named set of these options; --config and the command line win.",
            autocompletion=COMPLETE["suite"],
        ),
    ] = None,
    flops: Annotated[
        bool, typer.Option("--flops", help="Also print the multiply-adds of one image, part by part.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print cells, images, disk and hours, and stop.")
    ] = False,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="Print the options in effect as a file for --config, and stop."),
    ] = False,
) -> None:
    """Run methods over datasets, print a table and say where the records are.

    Cells that the run folder already holds are not computed again.
    """
    from tta_bench.config import effective_config

    request, controls = _asked(given, config, suite)
    if print_config:
        typer.echo(effective_config(request, controls), nl=False)
        return
    from tta_bench.names import check_request

    check_request(request)
    from tta_bench.cli.flops import print_flops
    from tta_bench.engine.objects import Objects
    from tta_bench.engine.planning import describe_defaults, plan
    from tta_bench.reports.progress import say
    from tta_bench.reports.text import report_console

    console = report_console()
    cells = plan(request)
    say(console, f"tta-bench: {describe_defaults(cells, request)}")
    if dry_run:
        _print_plan(console, cells, controls, request)
        return
    objects = Objects(workers=request.workers)
    ran = _to_the_end(console, cells, request, controls, objects)
    _report(console, controls.output, ran)
    counted = print_flops(console, cells, objects) if flops else True
    if not counted or any(one.status in ("failed", "differs") for one in ran.ended):
        raise typer.Exit(FAILED)


def _print_plan(console: Console, cells: Sequence[Cell], controls: Controls, request: Request) -> None:
    """Print what the run is going to do and what that takes, from what the run folder's finished cells took."""
    from tta_bench.engine.objects import Objects
    from tta_bench.records.past import read_past
    from tta_bench.reports.plan import plan_lines, plan_of
    from tta_bench.reports.progress import say

    past = read_past(controls.output)
    planned = plan_of(cells, past, Objects(workers=request.workers).count)
    for line in plan_lines(planned, past, controls.jobs):
        say(console, line)


def _to_the_end(
    console: Console, cells: Sequence[Cell], request: Request, controls: Controls, objects: Objects
) -> Ran:
    """Run the cells; say what is left to do where the user interrupts them."""
    from tta_bench.api import run_cells
    from tta_bench.config import effective_config
    from tta_bench.records.driver import runs_apart
    from tta_bench.reports.crew import Crew
    from tta_bench.reports.progress import ConsoleReporter
    from tta_bench.reports.text import counted

    reporter, crew = ConsoleReporter(console, len(cells)), Crew(console)
    try:
        config = effective_config(request, controls)
        if runs_apart(controls):
            with crew:
                return run_cells(cells, controls, objects=objects, crew=crew, config=config)
        with reporter:
            return run_cells(cells, controls, objects=objects, reporter=reporter, config=config)
    except KeyboardInterrupt as error:
        _show_what_is_there(console, controls.output)
        if sys.stderr is not None and sys.stderr.isatty():
            typer.echo(err=True)  # the terminal has echoed ^C
        ended = crew.cells if runs_apart(controls) else reporter.ended
        sentence = (
            f"tta-bench: interrupted after {ended} of {counted(len(cells), 'cell')}; the same command with "
            "--resume continues from here"
        )
        say_on_stderr(sentence)
        raise typer.Exit(exit_code(error)) from None


def _show_what_is_there(console: Console, output: str) -> None:
    """Print the table of a run folder after an interruption, and what is missing of it; another one ends that too."""
    from tta_bench.reports.leaderboard import board
    from tta_bench.reports.progress import say
    from tta_bench.reports.table import print_table

    with suppress(KeyboardInterrupt, TTABenchError):
        found = board([output], allow_mixed=True)
        console.print()
        print_table(found.rows, console)
        for sentence in found.missing:
            say(console, sentence, style="yellow")


def _asked(given: dict[str, Any], config: Path | None, suite: str | None) -> tuple[Request, Controls]:
    """Return what is asked for: the command line over the file over the suite over the defaults."""
    from tta_bench.config import SUITE, read_config
    from tta_bench.spec.options import options_of, read_values

    read = read_config(config) if config else {}
    suite = read.pop(SUITE, None) if suite is None else suite
    both = [options_of(Request), options_of(Controls)]
    of_request, of_controls = (
        [{k: v for k, v in one.items() if k in kind} for one in (read, given)] for kind in both
    )
    controls = Controls(**merged(read_values(Controls, one) for one in of_controls))
    values = merged(read_values(Request, one) for one in of_request)
    if suite is None:
        return make_request(values), controls
    from tta_bench.suites import within

    values, use = within(suite, values)
    return make_request(values, use), controls


def _report(console: Console, output: str, ran: Ran) -> None:
    """Print the table of this run's cells, and name what was written."""
    from tta_bench.reports.cautions import caution_lines
    from tta_bench.reports.progress import say
    from tta_bench.reports.skipped import skipped_images
    from tta_bench.reports.table import print_table
    from tta_bench.reports.text import counted
    from tta_bench.reports.verdicts import verdicts
    from tta_bench.spec.warned import is_idle

    output = output.rstrip("/") or output
    console.print()
    rows = ran.results.rows(allow_mixed=True)
    print_table(rows, console)
    for number, verdict in enumerate(verdicts(rows)):
        say(console, f"{'' if number else chr(10)}{verdict}")
    fresh = {one.cell for one in ran.ended if one.status != "reused"}
    again = sum(one.status in ("remeasured", "differs") for one in ran.ended)
    reused = sum(one.status == "reused" for one in ran.ended)
    computed = counted(len(ran.ended) - reused - again, "cell")
    timed = f", {again} timed again" if again else ""
    say(console, f"\n{computed} computed, {reused} reused{timed}. Written:")
    say(console, f"  {output}/cells/*/records.parquet  one row per image")
    say(console, f"  {output}/cells/*/manifest.json    hyper-parameters, protocol, versions, machine")
    say(console, f"  {output}/plans/*.yaml             the options of each run, for --config")
    say(console, f"  {output}/leaderboard.csv          the table of the whole folder")
    manifests = ran.results.manifests()
    warned = sum(not all(map(is_idle, one.warnings)) for one in manifests if one.id in fresh)
    if warned:
        where = "its manifest.json" if warned == 1 else "their manifest.json files"
        say(
            console, f"Libraries or plug-ins warned during {counted(warned, 'cell')}; see warnings in {where}"
        )
    left_out = skipped_images(output, {one.cell for one in ran.ended})
    for sentence in [*caution_lines(manifests), *left_out]:
        say(console, sentence, style="yellow")
    for one in ran.ended:
        if one.status == "failed" and not one.cell:  # its process died before it had an id
            say(console, f"failed: {one.label}; its process died before it began, see above", style="red")
        elif one.status == "failed":
            where = f"{output}/cells/{one.cell}/manifest.json"
            say(console, f"failed: {one.label}; the traceback is in {where}", style="red")
        if one.status == "differs":
            say(
                console,
                f"not timed again: {one.label}; it no longer gives what is recorded, which stays",
                style="red",
            )
