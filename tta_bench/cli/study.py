# SPDX-License-Identifier: Apache-2.0
"""``tta-bench study``: trace how a method fits a student to its teacher."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console
    from rich.table import Table

    from tta_bench.studies.apm import Plan, Point
    from tta_bench.studies.levels import LevelPoint


def study(
    method: Annotated[str, typer.Argument(help="A method that fits a student to its teacher: apm.")],
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="As in run; default: eight shifts of pocket; repeat for several."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="Images per shift (the first N).", min=2)] = 100,
    updates: Annotated[
        list[int] | None,
        typer.Option("--updates", help="Number of updates to evaluate at; repeat for several."),
    ] = None,
    lr: Annotated[list[float] | None, typer.Option("--lr", help="Learning rate; repeat for several.")] = None,
    width: Annotated[
        list[float] | None,
        typer.Option("--width", help="Factor of the student's widths; repeat for several."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Further hyper-parameter; repeat for several.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random draws.", min=0)] = 0,
    pretrained: Annotated[
        bool, typer.Option("--pretrained/--no-pretrained", help="Without: random weights.")
    ] = True,
    model: Annotated[str, typer.Option("--model", help="Source model; default: the method's own.")] = "",
    levels: Annotated[
        bool,
        typer.Option("--levels", help="Accuracy of each level of the teacher, and of students fitted to it."),
    ] = False,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures", help="Image file: loss, error map, and a path to a second image (--figures-to)."
        ),
    ] = None,
    figures_to: Annotated[
        Path | None, typer.Option("--figures-to", help="Second image of the path between two images.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", help="Folder of the CSV file and the plot.")] = Path(
        "study"
    ),
    plots: Annotated[
        bool, typer.Option("--plot/--no-plot", help="Draw the curves (needs matplotlib).")
    ] = True,
) -> None:
    """Measure accuracy, agreement with the teacher, loss and image dependence over updates, learning rate and width."""
    from tta_bench.names import check_names

    check_names([method], dataset or (), [model] if model else ())
    from tta_bench.reports.progress import say
    from tta_bench.reports.text import percent, report_console, signs
    from tta_bench.spec import settings_for
    from tta_bench.studies.apm import Plan
    from tta_bench.studies.apm import study as measure
    from tta_bench.studies.apm_files import make_folder, plot, write_csv

    steps = updates and sorted(set(updates))
    given = {
        "datasets": dataset, "updates": steps, "width_updates": steps, "lrs": lr, "widths": width,
        "values": settings and settings_for(method, settings).items(),
    }  # fmt: skip
    chosen: dict[str, Any] = {key: tuple(value) for key, value in given.items() if value}
    plan = Plan(method=method, images=limit, seed=seed, pretrained=pretrained, model=model, **chosen)
    console = report_console()
    make_folder(output)
    if levels or figures is not None:
        _beside(plan, console, output, levels=levels, figures=figures, second=figures_to)
        return
    points = measure(plan, lambda text: say(console, f"done: {text}"))
    console.print(_table(points, partial(percent, sign=signs(console), signed=False)))
    written = [output / f"{method}.csv"]
    write_csv(points, written[0])
    if plots:
        written.append(output / f"{method}.svg")
        plot(points, written[1])
    say(console, f"Intervals are 95%. Written: {', '.join(map(str, written))}")


def _beside(
    plan: Plan, console: Console, output: Path, *, levels: bool, figures: Path | None, second: Path | None
) -> None:
    """Study levels as targets, or draw the figures of one image."""
    from tta_bench.reports.progress import say
    from tta_bench.reports.text import percent, signs
    from tta_bench.studies.apm_files import write_csv
    from tta_bench.studies.figures import draw_figures
    from tta_bench.studies.levels import study_levels

    written = []
    if levels:
        points = study_levels(plan, lambda text: say(console, f"done: {text}"))
        console.print(_levels_table(points, partial(percent, sign=signs(console), signed=False)))
        written.append(output / "levels.csv")
        write_csv(points, written[-1])
    if figures is not None:
        written += draw_figures(plan, figures, second, output)
    say(console, f"Written: {', '.join(map(str, written))}")


def _levels_table(points: Sequence[LevelPoint], shown: Callable[..., str]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("level", "teacher", "student", "vs teacher", "agreement"):
        table.add_column(name, justify="right", no_wrap=True)
    for point in points:
        low, high = (100 * end for end in point.gain[1:])
        table.add_row(
            str(point.level), shown(*point.teacher), shown(*point.accuracy), f"{low:+.1f} to {high:+.1f}",
            f"{point.agreement.value:.3f}",
        )  # fmt: skip
    return table


def _table(points: Sequence[Point], shown: Callable[..., str]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("lr", "weights", "updates", "accuracy", "vs teacher", "agreement", "loss", "own", "other"):
        table.add_column(name, justify="right", no_wrap=True)
    for point in points:
        low, high = (100 * end for end in point.gain[1:])
        table.add_row(
            f"{point.lr:g}", f"{point.weights:,}", str(point.updates),
            shown(*point.accuracy), f"{low:+.1f} to {high:+.1f}",
            f"{point.agreement.value:.3f}", f"{point.loss.value:.3g}", f"{point.own.value:.3f}",
            f"{point.other.value:.3f}",
        )  # fmt: skip
    return table
