# SPDX-License-Identifier: Apache-2.0
"""``tta-bench recommend``: the methods that are worth their cost."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Cost(StrEnum):
    """Costs that accuracy is weighed against."""

    time = "time"
    memory = "memory"


def recommend(
    folders: Annotated[list[str], typer.Argument(help="Run folders: paths or URLs.")],
    cost: Annotated[Cost, typer.Option("--cost", help="What accuracy is weighed against.")] = Cost.time,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Leave out rows whose protocol facts differ.")
    ] = False,
) -> None:
    """Print the methods that no other beats in accuracy and cost, and whether adaptation is worth it."""
    from tta_bench.reports.leaderboard import leaderboard
    from tta_bench.reports.pareto import fronts, print_fronts
    from tta_bench.reports.progress import say
    from tta_bench.reports.text import report_console
    from tta_bench.reports.verdicts import verdicts

    rows = leaderboard(folders, allow_mixed=allow_mixed)
    console = report_console()
    print_fronts(fronts(rows, cost.value), cost.value, console)
    for verdict in verdicts(rows):
        say(console, str(verdict))
