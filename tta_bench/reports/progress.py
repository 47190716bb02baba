# SPDX-License-Identifier: Apache-2.0
"""Show the progress of a run: one bar on a terminal, and everywhere one line for each cell that ended."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from tta_bench.data.images.contents import report_reading
from tta_bench.reports.text import counted
from tta_bench.spec.texts import masked, visible

QUIET_SECONDS = 10.0
LINE = 80
"""Columns of a cell's line where there is no terminal: a log and a notebook read the same."""
LEAST_LABEL = 16


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a sentence as it is: wrapped between words on a terminal, one line elsewhere."""
    console.print(
        visible(masked(text)), style=style, markup=False, highlight=False, soft_wrap=not console.is_terminal
    )


def shortened(label: str, room: int) -> str:
    """Return the label of a cell cut to a number of columns: the dataset goes first, then the middle of the rest.

    Args:
        label: ``method · model · dataset:corruption:severity[ · seed 1]``, as `tta_bench.spec.Cell.label` gives it.
        room: Columns.
    """
    if cell_len(label) <= room:
        return label
    parts = label.split(" · ")
    label = " · ".join([*parts[:2], *(part.partition(":")[2] or part for part in parts[2:])])
    if cell_len(label) <= room:
        return label
    head = (room - 1) // 2
    return f"{set_cell_size(label, head).rstrip()}…{label[-(room - 1 - head) :].lstrip()}"


def duration(seconds: float) -> str:
    """Return a time as people read it: ``8.2 s``, ``42 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


class ConsoleReporter:
    """Progress of a run on one console; satisfies `tta_bench.engine.ports.Reporter`.

    On a terminal the whole run has one bar, with the cell under way, its images per second, and the time that the run
    still takes. Elsewhere a line is printed every ten seconds. A line stays for each cell that ended.

    Args:
        console: Where to print.
        cells: How many cells the run has.
    """

    def __init__(self, console: Console, cells: int) -> None:
        self._console, self._cells, self.ended = console, cells, 0
        self._label, self._done, self._total, self._fresh = "", 0, 0, 0
        self._started = self._told = time.monotonic()
        self._spent, self._computed = 0.0, 0
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[state]}", markup=False),
            console=console,
            transient=True,
            expand=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._reading: TaskID | None = None
        self._warming: TaskID | None = None
        self._read, self._listening = 0.0, ExitStack()

    def __enter__(self) -> ConsoleReporter:
        """Start drawing."""
        self._progress.start()
        self._task = self._progress.add_task("", total=max(self._cells, 1), state="")
        self._listening.enter_context(report_reading(self.reading))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._listening.close()
        self._progress.stop()

    def reading(self, done: int, total: int) -> None:
        """Tell how many files are read for the hash of the data; they are read once until they change."""
        text = "reading files for the data hash, once until they change"
        if self._console.is_terminal:
            if self._reading is None:
                self._reading = self._progress.add_task(text, total=total, state="")
            self._progress.update(
                self._reading, completed=done, total=total, visible=done < total, state=f"{done:,}/{total:,}"
            )
        elif done == total or time.monotonic() - self._read >= QUIET_SECONDS:
            self._read = time.monotonic()
            say(self._console, f"{text}: {done:,} of {total:,}")

    def preparing(self, method: str, done: int, total: int | None) -> None:
        """Tell how many source images a method has read before the stream, which can take longer than the stream."""
        done = done if total is None else min(done, total)
        text = f"warming up {masked(visible(method))}"
        if self._console.is_terminal:
            if self._warming is None:
                self._warming = self._progress.add_task(text, total=total, state="")
            state = f"{done:,} images" if total is None else f"{done:,}/{total:,}"
            self._progress.update(self._warming, completed=done, state=state)
        elif time.monotonic() - self._told >= QUIET_SECONDS:
            self._told = time.monotonic()
            of = "" if total is None else f" of {total:,}"
            say(self._console, f"{text}: {done:,}{of} images")

    def _prepared(self) -> None:
        """Take the bar of the preparation away."""
        if self._warming is not None:
            self._progress.remove_task(self._warming)
            self._warming = None

    def cell_started(self, label: str, done: int, total: int) -> None:
        """Name the cell under way."""
        self._label, self._done, self._total, self._fresh = masked(visible(label)), done, total, 0
        self._started = self._told = time.monotonic()
        self._draw()

    def advanced(self, images: int) -> None:
        """Move the bar; without a terminal, print a line every ten seconds."""
        self._prepared()
        self._done += images
        self._fresh += images
        self._draw()
        now = time.monotonic()
        if not self._console.is_terminal and now - self._told >= QUIET_SECONDS:
            self._line(self.ended + 1, f"{self._done}/{self._total}, {self._state()}")
            self._told = now

    def cell_ended(self, label: str, status: str, detail: str = "") -> None:
        """Close a cell with a line that stays."""
        self._prepared()
        self.ended += 1
        self._label = masked(visible(label))
        seconds = time.monotonic() - self._started
        if status == "reused":
            if detail or not self._console.is_terminal or self.ended == self._cells:
                self._line(self.ended, "already computed")
        else:
            self._spent, self._computed = self._spent + seconds, self._computed + 1
            rate = f"{counted(self._fresh, 'image')} in {duration(seconds)}"
            self._line(self.ended, rate if status == "complete" else f"{status} after {rate}")
        if detail:
            say(self._progress.console, f"  {detail}")
        self._done = self._total = self._fresh = 0
        self._draw()

    def _draw(self) -> None:
        """Show where the whole run stands."""
        if self._task is None or self._progress.disable:
            return
        part = self._done / self._total if self._total else 0.0
        number = min(self.ended + 1, self._cells)
        room = max(self._console.width // 2 - 8, LEAST_LABEL)
        text = f"[{number}/{self._cells}] {shortened(self._label, room)}"
        self._progress.update(self._task, completed=self.ended + part, description=text, state=self._state())

    def _state(self) -> str:
        """Return the speed of the cell under way and the time that is left of the run."""
        seconds = time.monotonic() - self._started
        speed = f"{self._fresh / max(seconds, 1e-9):.0f} images/s" if self._fresh else ""
        left = self._left(seconds)
        return ", ".join(part for part in (speed, "" if left is None else f"{duration(left)} left") if part)

    def _left(self, seconds: float) -> float | None:
        """Return the seconds that the run still takes, judged by the cells that were computed; None without any."""
        part = self._fresh / self._total if self._total else 0.0
        computed = self._computed + part
        if computed <= 0:
            return None
        ahead = self._cells - self.ended - (self._done / self._total if self._total else 0.0)
        return (self._spent + (seconds if part else 0.0)) / computed * ahead

    def _line(self, number: int, text: str) -> None:
        """Print a line of a cell, cut so that it is one."""
        before = f"[{number}/{self._cells}] "
        width = self._console.width if self._console.is_terminal else LINE
        room = max(width - len(before) - len(text) - 2, LEAST_LABEL)
        say(self._progress.console, f"{before}{shortened(self._label, room)}: {text}")
