# SPDX-License-Identifier: Apache-2.0
"""``tta-bench validate``: run the conformance checks on a method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tta_bench.cli.completion import COMPLETE
from tta_bench.cli.plugin import Plugins, methods_of_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from tta_bench.checks import CheckResult

FAILED = 1
STYLES = {"passed": "green", "failed": "bold red", "skipped": "dim", "xfail": "yellow", "xpass": "bold red"}


def validate(
    target: Annotated[
        str,
        typer.Argument(
            help="Name of a method, or a Python file that defines some; default: those of --plugin.",
            autocompletion=COMPLETE["method"],
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Hyper-parameter, lr=1e-4 or tent.lr=1e-4; repeat for several."),
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="Named hyper-parameters of the literature.")] = "",
    plugin: Plugins = None,
) -> None:
    """Run the conformance checks on a method; exit code 1 if one fails."""
    names = _named(target, plugin)
    from tta_bench.checks import check_method
    from tta_bench.hyperparameters import create_method, methods_in_file
    from tta_bench.reports.text import report_console
    from tta_bench.spec import settings_for

    console = report_console(plain_width=160)
    plugins = methods_of_files(plugin)
    if _is_file(target):
        plugins |= methods_in_file(Path(target))
    failed = False
    for name in names or plugins:
        method = create_method(name, settings_for(name, settings or ()), preset=preset, plugins=plugins)
        results = check_method(method)
        _show(console, name, results)
        failed |= any(result.bad for result in results)
    if failed:
        raise typer.Exit(FAILED)


def _named(target: str, plugin: list[str] | None) -> list[str]:
    """Return the method that is named, none where a file says which; an unknown one is refused at once.

    Raises:
        BadInputError: If neither is given.
    """
    from tta_bench import registry
    from tta_bench.errors import BadInputError, UnknownNameError

    if not (target or plugin):
        raise BadInputError("validate needs the name of a method, or a Python file that defines some")
    if not target or _is_file(target):
        return []
    known = registry.registered("methods")
    if target not in known and not plugin:
        raise UnknownNameError("method", target, known, "`tta-bench list methods` shows all")
    return [target]


def _is_file(target: str) -> bool:
    return target.endswith(".py") or "/" in target or "\\" in target


def _show(console: Console, name: str, results: Sequence[CheckResult]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"\n{name}", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("what must hold", overflow="fold")
    for result in results:
        shown = Text(result.sentence)
        if result.reason:
            shown.append(f"\n{result.reason}", STYLES[result.status])
        table.add_row(result.name, Text(result.status, STYLES[result.status]), shown)
    console.print(table)
    counts = {status: sum(result.status == status for result in results) for status in STYLES}
    parts = [f"{count} {status}" for status, count in counts.items() if count]
    console.print(f"{name}: {', '.join(parts)}", markup=False, highlight=False)
