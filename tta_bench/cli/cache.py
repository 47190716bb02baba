# SPDX-License-Identifier: Apache-2.0
"""``tta-bench cache``: what is kept so that it need not be computed again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tta_bench.cli.examples import epilog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tta_bench.engine.kept import Entry

DAMAGED = 1

cache_app = typer.Typer(
    help="List, check and prune the features and initial states that are kept in the cache folder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@cache_app.command("list", epilog=epilog("cache list"))
def list_cache() -> None:
    """Print where the cache is, its limit, and what it holds, the latest used last."""
    from rich.table import Table

    from tta_bench.engine.kept import entries
    from tta_bench.engine.kept_list import about
    from tta_bench.reports.progress import say
    from tta_bench.reports.text import report_console

    console, found = report_console(), entries()
    say(console, _place(found))
    if not found:
        return
    table = Table(box=None, pad_edge=False)
    for heading, right in (("kind", False), ("MiB", True), ("used", False), ("of", False)):
        table.add_column(
            heading, justify="right" if right else "left", no_wrap=heading != "of", overflow="fold"
        )
    for one in found:
        used = datetime.fromtimestamp(one.used).astimezone().isoformat(" ", "minutes").partition("+")[0]
        table.add_row(one.kind, f"{one.size / 2**20:,.1f}", used, about(one))
    console.print(table, markup=False)


@cache_app.command(epilog=epilog("cache check"))
def check() -> None:
    """Compare every file with its checksum; one that differs is never used, and this ends with exit code 1."""
    from tta_bench.engine.kept import entries
    from tta_bench.engine.kept_list import damaged
    from tta_bench.reports.progress import say
    from tta_bench.reports.text import report_console

    console, found = report_console(), entries()
    say(console, _place(found))
    bad = [path for one in found for path in damaged(one)]
    for path in bad:
        say(console, f"damaged: {path}", style="red")
    if bad:
        say(
            console,
            "what they held is computed again when it is needed; `tta-bench cache prune` removes them",
        )
        raise typer.Exit(DAMAGED)
    say(console, f"{sum(len(one.files()) for one in found)} files are as they were written")


@cache_app.command(epilog=epilog("cache prune"))
def prune(
    to: Annotated[
        str | None,
        typer.Option("--to", help="Size to come down to, such as 500MB or 2GiB; default: the limit."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove everything.")] = False,
) -> None:
    """Remove damaged files, and what was used longest ago until the rest fits into a size."""
    from tta_bench.engine.kept import entries, prune, read_size, size_limit
    from tta_bench.engine.kept_list import damaged
    from tta_bench.errors import BadInputError
    from tta_bench.reports.progress import say
    from tta_bench.reports.text import report_console

    if everything and to is not None:
        raise BadInputError("to and all exclude each other; give one of them", options=("to",))
    before = entries()
    for path in [path for one in before for path in damaged(one)]:
        path.unlink(missing_ok=True)
    removed = prune(0 if everything else size_limit() if to is None else read_size(to))
    freed = sum(one.size for one in before) - sum(one.size for one in entries())
    console = report_console()
    say(console, f"removed {len(removed)} of {len(before)} entries, {freed / 2**20:,.1f} MiB")
    say(console, _place(entries()))


def _place(found: Sequence[Entry]) -> str:
    from tta_bench.data.layouts.locate import cache_folder
    from tta_bench.engine.kept import LIMIT_VARIABLE, size_limit

    taken, limit = sum(one.size for one in found), size_limit()
    turned = f"limit {limit / 2**20:,.0f} MiB" if limit else "turned off"
    return f"{cache_folder()}: {taken / 2**20:,.1f} MiB in {len(found)} entries, {turned} ({LIMIT_VARIABLE})"
