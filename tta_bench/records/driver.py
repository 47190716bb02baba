# SPDX-License-Identifier: Apache-2.0
"""Run cells in other processes: hand them to an executor, keep what comes back, put shards together."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tta_bench.engine.executors.task import Answer, Event, Orders, Setup, Task, Team, refuse_in_process
from tta_bench.engine.session import Ended
from tta_bench.errors import BadInputError
from tta_bench.records.shards import merge
from tta_bench.records.store import Store
from tta_bench.records.worker import check, work
from tta_bench.spec import Cell, Controls
from tta_bench.spec.texts import masked


def runs_apart(controls: Controls) -> bool:
    """Return whether a run needs other processes than this one."""
    several = controls.jobs > 1 or (controls.shards or 1) > 1
    return controls.executor != "local" or several or controls.cell_timeout is not None


def run_apart(cells: Sequence[Cell], setup: Setup, team: Team) -> list[Ended]:
    """Run cells in other processes and return how each ended, in their order.

    Args:
        cells: The cells.
        setup: How.
        team: Shows the progress.

    Raises:
        TTABenchError: If they cannot run there, or the store cannot be used.
    """
    controls = _shared(setup.controls)
    refuse_in_process(cells, f"executor {controls.executor} with {controls.jobs} processes")
    store = Store(controls.output).open(create=True)
    store.put_plan(cells, setup.config)
    collector = _Collector(store, team)
    orders = Orders(
        cells=cells,
        setup=setup._replace(controls=controls),
        work=work,
        check=check,
        fail=fail,
        team=collector,
    )
    _executor(controls.executor)(orders)
    return collector.ended()


def _executor(name: str) -> Callable[[Orders], None]:
    if name == "ray":
        from tta_bench.engine.executors.on_ray import run_on_ray

        return run_on_ray
    if name == "slurm":
        from tta_bench.engine.executors.on_slurm import run_on_slurm

        return run_on_slurm
    from tta_bench.engine.executors.local import run_locally

    return run_locally


def _shared(controls: Controls) -> Controls:
    """Return the controls as other processes understand them.

    Raises:
        BadInputError: If the store is in this process's memory.
    """
    output = controls.output
    if output.startswith("memory:"):
        raise BadInputError(
            f"the run folder {masked(output)!r} is in the memory of this process, where no other can write; give a "
            "path or the URL of a store that all reach, or use executor=local with jobs=1",
            options=("output",),
        )
    threads = controls.threads
    if threads is None:
        threads = max(1, (os.cpu_count() or 1) // controls.jobs) if controls.executor == "local" else 1
    path = output if "://" in output else str(Path(output).absolute())
    return replace(controls, output=path, threads=threads)


def fail(setup: Setup, cell: str, task: Task, sentence: str) -> Answer:
    """Mark a task as failed that was ended from outside; its rows stay, and resume=True continues behind them.

    Args:
        setup: Of the run.
        cell: Id of its cell; empty if it ended before it had one.
        task: The task.
        sentence: What happened.
    """
    store = Store(setup.controls.output)
    if cell and task.count > 1:
        store = store.shard(cell, task.index, task.count)
    kept = store.manifest(cell) if cell else None
    if kept is not None and kept.status == "running":
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        rows = store.rows_done(cell) if task.count == 1 else 0
        store.write_manifest(replace(kept, status="failed", error=sentence, finished=finished, images=rows))
    return Answer(Ended(cell, task.cell.label, "failed"), detail=sentence)


class _Collector:
    """Keep how tasks ended, put shards together, and pass on what is shown."""

    def __init__(self, store: Store, team: Team) -> None:
        self._store, self._team = store, team
        self._tasks: Sequence[Task] = ()
        self._answers: dict[int, Answer] = {}
        self._merged: dict[int, Ended] = {}

    def planned(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._team.planned(tasks)

    def task_started(self, worker: str, task: Task) -> None:
        self._team.task_started(worker, task)

    def heard(self, worker: str, task: Task, event: Event) -> None:
        self._team.heard(worker, task, event)

    def task_again(self, worker: str, task: Task, reason: str) -> None:
        self._team.task_again(worker, task, reason)

    def task_ended(self, worker: str, task: Task, answer: Answer) -> None:
        self._answers[task.number] = answer
        self._team.task_ended(worker, task, answer)
        first = task.number - task.index
        numbers = range(first, first + task.count)
        if task.count > 1 and all(number in self._answers for number in numbers):
            self._merged[first] = self._together(task, [self._answers[number] for number in numbers])

    def _together(self, task: Task, answers: Sequence[Answer]) -> Ended:
        each = [answer.ended for answer in answers if answer.ended is not None]
        cell = next((one.cell for one in each if one.cell), "")
        kept = self._store.manifest(cell) if cell else None
        reused = all(one.status == "reused" for one in each)
        if reused and kept is not None and kept.status in ("complete", "collapsed"):
            return Ended(cell, task.cell.label, "reused")
        if any(one.status == "failed" and not one.cell for one in each) or not cell:
            return Ended(cell, task.cell.label, "failed")
        return Ended(cell, task.cell.label, merge(self._store, cell, task.count).status)

    def ended(self) -> list[Ended]:
        """Return how each cell ended, in the order of the plan."""
        found = []
        for task in self._tasks:
            if task.index:
                continue
            answer = self._answers.get(task.number)
            ended = self._merged.get(task.number) if task.count > 1 else answer and answer.ended
            if ended is not None:
                found.append(ended)
        return found
