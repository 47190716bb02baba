# SPDX-License-Identifier: Apache-2.0
"""Tasks for processes that run cells, and their answers: plain values that can be pickled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tta_bench.engine.cell import AFRESH
from tta_bench.engine.session import Ended
from tta_bench.errors import BadInputError, StoreError, TTABenchError
from tta_bench.spec import Cell, Controls

KINDS: dict[str, type[TTABenchError]] = {"store": StoreError, "input": BadInputError}


@dataclass(frozen=True)
class Task:
    """One cell, or one range of its images.

    Attributes:
        number: Its place in the plan, from 0.
        cell: The cell.
        index: Which range.
        count: Of how many; 1: the whole cell.
        again: Whether it was tried before, so that it resumes.
    """

    number: int
    cell: Cell
    index: int = 0
    count: int = 1
    again: bool = False

    @property
    def label(self) -> str:
        """Return what progress lines call it."""
        return (
            self.cell.label if self.count == 1 else f"{self.cell.label} · part {self.index + 1}/{self.count}"
        )

    @property
    def stream(self) -> tuple[object, ...]:
        """Return what tasks share that read the same images: side by side on one process they are made once."""
        cell = self.cell
        return cell.dataset, cell.shifts, cell.seed, cell.data_seed, cell.subset


class Refused(NamedTuple):
    """An error of the user or of the store, as it travels between processes."""

    kind: str
    sentence: str
    options: tuple[str, ...] = ()

    def error(self) -> TTABenchError:
        """Return the error."""
        return KINDS[self.kind](self.sentence, options=self.options)


def refused(error: TTABenchError) -> Refused:
    """Return an error as it travels between processes."""
    return Refused("store" if isinstance(error, StoreError) else "input", str(error), error.options)


class Answer(NamedTuple):
    """The end of a task, or the reason why it was refused.

    Attributes:
        ended: How it ended; without an id if it died before it had one.
        refused: Why the whole run must stop.
        detail: What went wrong, in one line.
    """

    ended: Ended | None = None
    refused: Refused | None = None
    detail: str = ""


class Setup(NamedTuple):
    """Settings shared by all tasks of a run.

    Attributes:
        controls: How it is carried out.
        decoders: Processes that decode images beside each that runs cells; None: the kind of data decides.
        config: The options that the cells come from, as YAML, to be kept beside the plan.
    """

    controls: Controls
    decoders: int | None = None
    config: str = ""


class Event(NamedTuple):
    """Something that a process tells while it runs a task.

    Attributes:
        kind: ``cell``: a cell has the id ``text``; ``started``: ``done`` of ``total`` images are safe;
            ``advanced``: ``done`` more images; ``note``: a sentence for the user.
        text: The id or the sentence.
        done: Images.
        total: Images.
    """

    kind: str
    text: str = ""
    done: int = 0
    total: int = 0


Tell = Callable[[Event], None]
Work = Callable[[Task, Setup, Tell], Answer]
"""Run one task in this process; a function of a module, so that any process can be told which."""
Check = Callable[[Sequence[Cell], Setup], Refused | None]
"""Refuse cells that cannot run in this process."""
Fail = Callable[[Setup, str, Task, str], Answer]
"""Mark a task as failed that was ended from outside, by its cell's id, with a sentence."""


class Team(Protocol):
    """Whoever is told how the processes of a run get on."""

    def planned(self, tasks: Sequence[Task]) -> None:
        """Tell which tasks there are."""

    def task_started(self, worker: str, task: Task) -> None:
        """Tell that a worker begins a task."""

    def heard(self, worker: str, task: Task, event: Event) -> None:
        """Tell what a worker says of its task."""

    def task_ended(self, worker: str, task: Task, answer: Answer) -> None:
        """Tell how a task ended."""

    def task_again(self, worker: str, task: Task, reason: str) -> None:
        """Tell that a task is tried again."""


class Orders(NamedTuple):
    """The orders that an executor carries out.

    Attributes:
        cells: In the order of the plan.
        setup: How.
        work: Runs one task.
        check: Refuses what cannot run.
        fail: Marks a task as failed whose process cannot.
        team: Told how it goes.
    """

    cells: Sequence[Cell]
    setup: Setup
    work: Work
    check: Check
    fail: Fail
    team: Team


def tasks_of(cells: Sequence[Cell], workers: int, shards: int | None) -> list[Task]:
    """Return the tasks of cells: a cell whose batches start afresh may be cut into ranges, others never are.

    Args:
        cells: The cells.
        workers: Processes that are to be kept busy.
        shards: Ranges of each; None: as many as there are workers for each cell.
    """
    count = shards or max(1, workers // max(len(cells), 1))
    tasks: list[Task] = []
    for cell in cells:
        several = count if cell.reset in AFRESH else 1
        tasks += [Task(len(tasks) + index, cell, index, several) for index in range(several)]
    return tasks


def shards_of(controls: Controls) -> int | None:
    """Return the ranges that cells are cut into; a cell that is timed again is run in one go."""
    return 1 if controls.remeasure else controls.shards


def refuse_in_process(cells: Sequence[Cell], executor: str) -> None:
    """Refuse cells that only this process can run.

    Raises:
        BadInputError: For the first.
    """
    for cell in cells:
        if cell.in_process:
            parts = " and ".join(sorted(cell.in_process))
            raise BadInputError(
                f"{cell.label} is an in-process cell: its {parts} is an object of this process, which {executor} "
                "cannot hand to others; run it with executor=local, jobs=1 and no cell_timeout, or give the part by a "
                "name that can be loaded anywhere",
                options=("executor",),
            )
