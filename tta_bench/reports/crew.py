# SPDX-License-Identifier: Apache-2.0
"""Show the progress of a run in several processes: one view of all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tta_bench.engine.executors.task import Answer, Event, Task
from tta_bench.reports.progress import QUIET_SECONDS, say
from tta_bench.spec.texts import masked, visible


class Crew:
    """Progress of all processes on one console; satisfies `tta_bench.engine.executors.task.Team`.

    On a terminal there is one bar for the run and one for each process. Elsewhere a line is printed when a task ends,
    and every ten seconds one of the whole.

    Args:
        console: Where to print; None: nothing is shown.
    """

    def __init__(self, console: Console | None) -> None:
        self._console, self._total, self._ended, self._images = console, 0, 0, 0
        self._began = self._told = time.monotonic()
        self._cells = 0.0
        self._notes: set[str] = set()
        self._fresh: dict[int, tuple[float, int]] = {}
        self._bars: dict[str, TaskID] = {}
        self._whole: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}", markup=False),
            TextColumn("{task.fields[speed]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            expand=True,
            disable=console is None or not console.is_terminal,
        )

    def __enter__(self) -> Crew:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._progress.stop()

    @property
    def cells(self) -> int:
        """Return how many cells have ended, shards of one counting in part."""
        return int(self._cells)

    def planned(self, tasks: Sequence[Task]) -> None:
        """Begin the bar of the run."""
        self._total = len(tasks)
        self._whole = self._progress.add_task("all", total=self._total, speed="")

    def task_started(self, worker: str, task: Task) -> None:
        """Restart the bar of a worker."""
        self._fresh[task.number] = time.monotonic(), 0
        if worker in self._bars:
            self._progress.remove_task(self._bars[worker])
        self._bars[worker] = self._progress.add_task(f"{worker}: {_label(task)}", total=None, speed="")

    def heard(self, worker: str, task: Task, event: Event) -> None:
        """Move the bar of a worker, or say a sentence once."""
        if event.kind == "note":
            if event.text not in self._notes:
                self._notes.add(event.text)
                self._say(f"note: {event.text}")
        elif event.kind == "started":
            self._update(worker, total=event.total, completed=event.done)
        elif event.kind == "advanced":
            began, images = self._fresh.get(task.number, (time.monotonic(), 0))
            self._fresh[task.number] = began, images + event.done
            self._images += event.done
            self._update(worker, advance=event.done)
            self._say_now_and_then()

    def task_ended(self, worker: str, task: Task, answer: Answer) -> None:
        """Close a task with a line that stays."""
        self._ended += 1
        self._cells += 1 / task.count
        if self._whole is not None:
            self._progress.update(self._whole, completed=self._ended, speed=self._speed())
        began, images = self._fresh.pop(task.number, (time.monotonic(), 0))
        status = answer.ended.status if answer.ended is not None else "failed"
        if status == "reused":
            text = f"already computed, {answer.detail}" if answer.detail else "already computed"
        elif answer.detail:
            text = f"{status}: {answer.detail}"
        else:
            seconds = time.monotonic() - began
            text = f"{images} images in {seconds:.1f} s, {images / max(seconds, 1e-9):.0f} images/s"
            text = text if status == "complete" else f"{status}; {text}"
        self._say(f"[{self._ended}/{self._total}] {_label(task)}: {text} (worker {worker})")

    def task_again(self, worker: str, task: Task, reason: str) -> None:
        """Say that a task is tried again."""
        self._say(f"{_label(task)}: {reason}; it resumes (worker {worker})")

    def _update(self, worker: str, **changes: float) -> None:
        if worker in self._bars:
            self._progress.update(self._bars[worker], **changes)  # type: ignore[arg-type]

    def _speed(self) -> str:
        return f"{self._images / max(time.monotonic() - self._began, 1e-9):.0f} images/s"

    def _say_now_and_then(self) -> None:
        now = time.monotonic()
        if self._console is not None and not self._console.is_terminal and now - self._told >= QUIET_SECONDS:
            self._told = now
            self._say(f"{self._ended} of {self._total} done, {len(self._fresh)} under way, {self._speed()}")

    def _say(self, text: str) -> None:
        if self._console is not None:
            say(self._progress.console, text)


def _label(task: Task) -> str:
    return masked(visible(task.label))
