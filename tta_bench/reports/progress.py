# SPDX-License-Identifier: Apache-2.0
"""Show the progress of a run: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tta_bench.data.images.contents import report_reading
from tta_bench.spec.texts import masked, visible

QUIET_SECONDS = 10.0


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a sentence as it is: wrapped between words on a terminal, one line elsewhere."""
    console.print(
        visible(masked(text)), style=style, markup=False, highlight=False, soft_wrap=not console.is_terminal
    )


class ConsoleReporter:
    """Progress of a run on one console; satisfies `tta_bench.engine.ports.Reporter`.

    On a terminal the cell under way has a bar with images per second and remaining time. Elsewhere a line is
    printed when a cell ends, and every ten seconds in between.

    Args:
        console: Where to print.
        cells: How many cells the run has.
    """

    def __init__(self, console: Console, cells: int) -> None:
        self._console, self._cells, self._ended = console, cells, 0
        self._label, self._done, self._total, self._fresh = "", 0, 0, 0
        self._started = self._told = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}", markup=False),
            TimeRemainingColumn(compact=True),
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
                self._reading = self._progress.add_task(text, total=total, speed="")
            self._progress.update(self._reading, completed=done, total=total, visible=done < total)
        elif done == total or time.monotonic() - self._read >= QUIET_SECONDS:
            self._read = time.monotonic()
            say(self._console, f"{text}: {done:,} of {total:,}")

    def preparing(self, method: str, done: int, total: int | None) -> None:
        """Tell how many source images a method has read before the stream, which can take longer than the stream."""
        done = done if total is None else min(done, total)
        text = f"warming up {masked(visible(method))}"
        if self._console.is_terminal:
            if self._warming is None:
                self._warming = self._progress.add_task(text, total=total, speed="")
            self._progress.update(self._warming, completed=done)
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
        """Begin the bar of a cell."""
        self._label, self._done, self._total, self._fresh = masked(visible(label)), done, total, 0
        self._started = self._told = time.monotonic()
        if self._task is not None:
            self._progress.remove_task(self._task)
        text = f"[{self._ended + 1}/{self._cells}] {self._label}"
        self._task = self._progress.add_task(text, total=total, completed=done, speed="")

    def advanced(self, images: int) -> None:
        """Move the bar; without a terminal, print a line every ten seconds."""
        self._prepared()
        self._done += images
        self._fresh += images
        now = time.monotonic()
        speed = self._fresh / max(now - self._started, 1e-9)
        if self._task is not None:
            self._progress.update(self._task, completed=self._done, speed=f"{speed:.0f} images/s")
        if not self._console.is_terminal and now - self._told >= QUIET_SECONDS:
            left = (self._total - self._done) / max(speed, 1e-9)
            self._say(
                self._ended + 1, f"{self._done}/{self._total} images, {speed:.0f} images/s, {left:.0f} s left"
            )
            self._told = now

    def cell_ended(self, label: str, status: str, detail: str = "") -> None:
        """Close a cell with a line that stays."""
        self._prepared()
        self._ended += 1
        self._label = masked(visible(label))
        if status == "reused" and not detail:
            if not self._console.is_terminal or self._ended == self._cells:
                self._say(self._ended, "already computed")
            return
        seconds = time.monotonic() - self._started
        speed = f"{self._fresh} images in {seconds:.1f} s, {self._fresh / max(seconds, 1e-9):.0f} images/s"
        if status == "reused":
            self._say(self._ended, f"already computed, {detail}")
            return
        plain = speed if status == "complete" else f"{status}; {speed}"
        text = f"{status}: {detail}" if detail else plain
        self._say(self._ended, text)

    def _say(self, number: int, text: str) -> None:
        say(self._progress.console, f"[{number}/{self._cells}] {self._label}: {text}")
