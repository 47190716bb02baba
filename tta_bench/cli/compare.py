# SPDX-License-Identifier: Apache-2.0
"""``tta-bench compare``: compare two runs image by image."""

from __future__ import annotations

from typing import Annotated

import typer


def compare(
    first: Annotated[str, typer.Argument(help="Run folder A, or FOLDER/cells/ID for one cell.")],
    second: Annotated[str, typer.Argument(help="Run folder B, or FOLDER/cells/ID for one cell.")],
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
) -> None:
    """Compare two run folders on the images they share: protocol facts first, then paired accuracies."""
    from tta_bench.reports.compare import compare as build
    from tta_bench.reports.compare import print_comparison
    from tta_bench.reports.text import report_console

    console = report_console()
    print_comparison(build(first, second, seed=seed), console)
