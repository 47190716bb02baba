# SPDX-License-Identifier: Apache-2.0
"""``tta-bench compare``: compare methods, or two runs, image by image."""

from __future__ import annotations

from typing import Annotated

import typer

from tta_bench.cli.names import split_names


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
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
) -> None:
    """Compare methods, or two run folders, on the images that both saw: effects with intervals and paired tests.

    With --methods, cells of all run folders are pooled. Without it, two run folders are compared, cell by cell, and
    the protocol facts that differ come first.
    """
    from tta_bench.errors import BadInputError
    from tta_bench.reports.compare import compare as build
    from tta_bench.reports.compare import print_comparison
    from tta_bench.reports.load import load_cells
    from tta_bench.reports.select import parse_where
    from tta_bench.reports.text import report_console
    from tta_bench.reports.versus import compare_methods

    if methods or baseline:
        asked = parse_where(where or ())
        cells = [one for one in load_cells(runs) if asked.of_stored(one)]
        found = compare_methods(
            cells, split_names(methods or ()), baseline, allow_mixed=allow_mixed, seed=seed
        )
    elif len(runs) != 2:
        raise BadInputError(
            f"compare takes two run folders, or any number with --methods A,B, got {len(runs)} and no methods"
        )
    else:
        found = build(*runs, seed=seed)
    print_comparison(found, report_console())
