# SPDX-License-Identifier: Apache-2.0
"""The results of runs as an object: frames, rows, and a table wherever it is shown."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tta_bench.records.frame import read_frame
from tta_bench.records.store import Store
from tta_bench.reports.columns import NAMES, Row
from tta_bench.reports.compare import print_comparison
from tta_bench.reports.facts import By
from tta_bench.reports.leaderboard import leaderboard
from tta_bench.reports.load import load_cells
from tta_bench.reports.pairing import Comparison
from tta_bench.reports.pareto import Cost, Front, fronts
from tta_bench.reports.table import print_table
from tta_bench.reports.table_files import html
from tta_bench.reports.text import PLAIN_WIDTH, counted, report_console
from tta_bench.reports.verdicts import Verdict, verdicts
from tta_bench.reports.versus import compare_methods
from tta_bench.spec import Manifest
from tta_bench.spec.texts import masked, visible


@dataclass(frozen=True)
class Compared:
    """Methods that were compared with a baseline; printed, it is the table of ``tta-bench compare``.

    Attributes:
        comparison: The facts that differ and the rows.
    """

    comparison: Comparison

    def frame(self) -> pd.DataFrame:
        """Return one row per method, model and shift, and one over the shifts of a dataset.

        ``effect`` is method minus baseline, with the ends of its 95% interval beside it.
        """
        return pd.DataFrame(
            [
                {
                    "method": row.method, "model": row.model, "dataset": row.dataset, "shift": row.shift,
                    "images": row.common, "baseline_accuracy": row.accuracy_first, "accuracy": row.accuracy_second,
                    "effect": row.difference.value, "effect_low": row.difference.low,
                    "effect_high": row.difference.high, "p": row.p, "p_holm": row.p_holm,
                }
                for row in self.comparison.rows
            ]
        )  # fmt: skip

    def __str__(self) -> str:
        """Return the table as plain text."""
        return self._told(PLAIN_WIDTH)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show the table, as wide as there is room."""
        yield Text(self._told(options.max_width))

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        return str(self.frame().to_html(index=False, float_format="{:.3f}".format, na_rep="-", border=0))

    def _told(self, width: int) -> str:
        file = io.StringIO()
        print_comparison(self.comparison, report_console(file, width))
        return file.getvalue().rstrip()


@dataclass(frozen=True)
class Results:
    """Cells of run folders; everything is read from their records when it is asked for.

    Attributes:
        folders: Paths or URLs of run folders.
        ids: The cells that are meant; None: all.
    """

    folders: tuple[str, ...]
    ids: tuple[str, ...] | None = None

    def manifests(self) -> list[Manifest]:
        """Return the manifest of each cell: what was run, under which protocol, and how it ended."""
        return [one.manifest for one in load_cells(self.folders, self.ids)]

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return one row per image of all complete cells; control characters in texts are escapes.

        Args:
            columns: Record columns, see `tta_bench.records.schema.RECORD_SCHEMA`; all if None.
        """
        frames = [read_frame(folder, columns, self.ids) for folder in self.folders]
        return _shown(frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True))

    def rows(self, *, by: By = "dataset", allow_mixed: bool = False) -> list[Row]:
        """Return one row per method variant, model, dataset and protocol, as the leaderboard has them.

        Args:
            by: ``dataset`` aggregates over shifts, ``shift`` gives one row for each.
            allow_mixed: Mark rows whose comparable facts differ instead of refusing them.

        Raises:
            MixedProtocolError: If rows of one table differ in a comparable fact.
        """
        return leaderboard(self.folders, by=by, cells=self.ids, allow_mixed=allow_mixed)

    def summary(self, *, by: By = "dataset", allow_mixed: bool = False) -> pd.DataFrame:
        """Return the rows as a table; the columns are those of ``leaderboard.csv``. Arguments as in `rows`."""
        rows = self.rows(by=by, allow_mixed=allow_mixed)
        return _shown(pd.DataFrame([dataclasses.asdict(row) for row in rows], columns=list(NAMES)))

    def compare(
        self, *methods: str, baseline: str = "", allow_mixed: bool = False, seed: int = 0
    ) -> Compared:
        """Compare methods on the images that both saw: ``compare("mine", "tent")`` is mine minus tent.

        It gives what ``tta-bench compare RUNS --methods mine --baseline tent`` prints.

        Args:
            methods: Names, or ``NAME[lr=0.01]`` for a variant.
            baseline: The method that the others are compared with; by default the last one named.
            allow_mixed: Compare methods whose comparable facts differ instead of refusing them.
            seed: Seed of the bootstrap.

        Raises:
            BadInputError: If a method is not here, or two share no model, shift, seed or image.
            MixedProtocolError: If their comparable facts differ.
        """
        others, last = (methods, baseline) if baseline else (methods[:-1], "".join(methods[-1:]))
        cells = load_cells(self.folders, self.ids)
        return Compared(compare_methods(cells, others, last, allow_mixed=allow_mixed, seed=seed))

    def verdicts(self) -> list[Verdict]:
        """Return whether adaptation is worth its cost, for each model and dataset; ``str()`` says it in words."""
        return verdicts(self.rows(allow_mixed=True))

    def pareto(self, cost: Cost = "time") -> list[Front]:
        """Return the rows that no other row beats in accuracy and cost, for each dataset and machine.

        Args:
            cost: ``time`` or ``memory``.
        """
        return fronts(self.rows(allow_mixed=True), cost)

    def failed(self) -> dict[str, str]:
        """Return the last line of the traceback of each cell that failed, by its label."""
        lines = ((one.cell.label, one.error) for one in self.manifests() if one.status == "failed")
        return {_safe(label): _safe((error or "").strip().rpartition("\n")[2]) for label, error in lines}

    def save(self, folder: str) -> Results:
        """Copy the cells into a run folder, which may hold others already, and return them from there.

        Raises:
            StoreError: If the folder is no run folder or cannot be written.
        """
        target = Store(folder).open(create=True)
        cells = load_cells(self.folders, self.ids)
        for one in cells:
            one.store.copy_to(target, one.manifest.id)
        return Results((folder,), tuple(one.manifest.id for one in cells))

    def __len__(self) -> int:
        """Return how many cells there are."""
        return len(load_cells(self.folders, self.ids))

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows, marked where they may not be compared."""
        return iter(self.rows(allow_mixed=True))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show the table of a run, as wide as there is room."""
        yield Text(_table(self.rows(allow_mixed=True), options.max_width).rstrip())

    def __str__(self) -> str:
        """Return the table of a run as plain text."""
        return _table(self.rows(allow_mixed=True), PLAIN_WIDTH).rstrip()

    def __repr__(self) -> str:
        """Return where the cells are and how many there are."""
        return _safe(f"<Results: {counted(len(self), 'cell')} in {', '.join(self.folders)}>")

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        return html(self.rows(allow_mixed=True))


def _safe(text: str) -> str:
    """Return text that a terminal shows and does not obey, without passwords."""
    return visible(masked(text))


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts are as they may be printed."""
    for name, column in frame.items():
        if isinstance(column.dtype, pd.CategoricalDtype):
            kept = {one: _safe(one) for one in column.cat.categories if isinstance(one, str)}
            changed = {old: new for old, new in kept.items() if old != new}
            if changed:
                frame[name] = column.map(lambda one, changed=changed: changed.get(one, one))
        elif column.dtype == object or isinstance(column.dtype, pd.StringDtype):
            frame[name] = column.map(lambda one: _safe(one) if isinstance(one, str) else one)
    return frame


def _table(rows: Sequence[Row], width: int) -> str:
    file = io.StringIO()
    print_table(rows, report_console(file, width))
    return file.getvalue()


def load(*folders: str) -> Results:
    """Return the results that run folders hold.

    Args:
        folders: Paths or URLs of run folders, at least one.

    Raises:
        StoreError: If one is no run folder.
    """
    for folder in folders:
        Store(folder).open(create=False)
    return Results(tuple(map(str, folders)))
