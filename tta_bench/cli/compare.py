# SPDX-License-Identifier: Apache-2.0
"""``tta-bench compare``: compare methods, or two runs, image by image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tta_bench.cli.names import split_names
from tta_bench.cli.plugin import Plugins, methods_of_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tta_bench.method import Method
    from tta_bench.reports.load import StoredCell


def of_current_code(one: StoredCell, own: Mapping[str, type[Method]]) -> bool:
    """Return whether a cell's method is not one of a file's, or ran with the code that the file holds now."""
    from tta_bench.hyperparameters import source_hash

    return one.cell.method not in own or one.cell.method_hash == source_hash(own[one.cell.method])


def compare(
    runs: Annotated[list[str], typer.Argument(help="Run folders, or FOLDER/cells/ID for one cell.")],
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods",
            "--method",
            help="Methods to compare, tent,mine; NAME[lr=0.01] is a variant; default: all, with --baseline.",
        ),
    ] = None,
    baseline: Annotated[
        str, typer.Option("--baseline", help="Method that the others are compared with; default: the first.")
    ] = "",
    allow_mixed: Annotated[
        bool,
        typer.Option(
            "--allow-mixed", help="With --methods: compare also where protocol facts differ, and name them."
        ),
    ] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            help="Only cells of which this is true, e.g. batch_size=64, shift=*:fog:*; repeat for all.",
        ),
    ] = None,
    plugin: Plugins = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
) -> None:
    """Compare methods, or two run folders, on the images that both saw: effects with intervals and paired tests.

    With --methods, cells of all run folders are pooled; --plugin chooses, of several versions of a file's method, that
    which the file holds now. Without methods, two run folders are compared, cell by cell, and the protocol facts that
    differ come first.
    """
    from tta_bench.errors import BadInputError
    from tta_bench.reports.compare import compare as build
    from tta_bench.reports.compare import print_comparison
    from tta_bench.reports.load import load_cells
    from tta_bench.reports.select import parse_where
    from tta_bench.reports.text import report_console
    from tta_bench.reports.versus import compare_methods

    if methods or baseline or plugin:
        asked = parse_where(where or ())
        cells = [one for one in load_cells(runs) if asked.of_stored(one)]
        own = methods_of_files(plugin)
        if own:
            cells = [one for one in cells if of_current_code(one, own)]
        names = split_names(methods or ()) or list(own)
        found = compare_methods(cells, names, baseline, allow_mixed=allow_mixed, seed=seed)
    elif len(runs) != 2:
        raise BadInputError(
            f"compare takes two run folders, or any number with --methods A,B, got {len(runs)} and no methods"
        )
    else:
        found = build(*runs, seed=seed)
    print_comparison(found, report_console())
