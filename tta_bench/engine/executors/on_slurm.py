# SPDX-License-Identifier: Apache-2.0
"""Run cells as an array of SLURM jobs through submitit; each job runs its cells in processes of its node.

Before its time limit SLURM signals a job, which keeps its rows and queues itself again; it then resumes. submitit's
own files, pickles among them, lie in a folder beside the store and never in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml

from tta_bench.engine.executors.extras import imported
from tta_bench.engine.executors.local import run_tasks_locally
from tta_bench.engine.executors.task import (
    Answer,
    Event,
    Orders,
    Refused,
    Task,
    refused,
    shards_of,
    tasks_of,
)
from tta_bench.engine.session import Ended
from tta_bench.errors import BadInputError, TTABenchError

FOLDER = "tta-bench-slurm"
"""Of submitit's files where none is named, in the working directory; all nodes must see it."""
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Chunk:
    """The tasks of one job of the array.

    Attributes:
        orders: Of the whole run, but for its team.
        tasks: Of this job.
        told: File that it tells its progress in.
    """

    orders: Orders
    tasks: list[Task]
    told: str

    def __call__(self) -> int:
        """Run the tasks that are left, and return how many there were."""
        with _Told(Path(self.told)) as team:
            jobs = max(1, torch.cuda.device_count())
            controls = replace(self.orders.setup.controls, jobs=jobs)
            orders = self.orders._replace(team=team, setup=self.orders.setup._replace(controls=controls))
            try:
                run_tasks_locally(orders, self.tasks)
            except TTABenchError as error:
                team.refuse(refused(error))
        return len(self.tasks)

    def checkpoint(self) -> Any:
        """Return what is queued again when the time is up: what is done is found in the store."""
        submitit = imported("submitit", "slurm")
        tasks = [replace(task, again=True) for task in self.tasks]
        return submitit.helpers.DelayedSubmission(replace(self, tasks=tasks))


class _Told:
    """Tell in a file, one line at a time, what a driver on another node shows."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Told:
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _say(self, worker: str, task: Task | None, **more: Any) -> None:
        number = None if task is None else task.number
        self._file.write(json.dumps({"worker": worker, "task": number, **more}) + "\n")
        self._file.flush()

    def refuse(self, why: Refused) -> None:
        self._say("", None, refused=list(why))

    def planned(self, tasks: Sequence[Task]) -> None:
        pass

    def task_started(self, worker: str, task: Task) -> None:
        self._say(worker, task, began=True)

    def heard(self, worker: str, task: Task, event: Event) -> None:
        self._say(worker, task, event=event._asdict())

    def task_ended(self, worker: str, task: Task, answer: Answer) -> None:
        self._say(worker, task, answer=_plain(answer))

    def task_again(self, worker: str, task: Task, reason: str) -> None:
        self._say(worker, task, again=reason)


def run_on_slurm(orders: Orders) -> None:
    """Run the cells of orders as an array of jobs, and wait for them.

    Raises:
        TTABenchError: If submitit is not installed, a parameter is not one of its own, a job cannot run its cells, or
            the store cannot be written.
    """
    submitit = imported("submitit", "slurm")
    controls = orders.setup.controls
    settings = _settings(controls.slurm)
    folder = Path(str(settings.pop("folder", FOLDER))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    tasks = tasks_of(orders.cells, controls.jobs, shards_of(controls))
    orders.team.planned(tasks)
    try:
        executor = submitit.AutoExecutor(str(folder), cluster=settings.pop("cluster", None))
        executor.update_parameters(**{"name": "tta-bench", **settings})
    except (RuntimeError, ValueError, NameError, TypeError) as error:
        raise BadInputError(
            f"slurm expects parameters of submitit for a cluster that is there, and it says: {error}; see "
            "docs/cluster.md",
            options=("slurm",),
        ) from error
    driver = _Driver(orders, tasks, executor, submitit, folder)
    try:
        driver.run()
    finally:
        driver.stop()


class _Driver:
    """The jobs of one run."""

    def __init__(self, orders: Orders, tasks: list[Task], executor: Any, submitit: Any, folder: Path) -> None:
        self._orders, self._executor, self._submitit = orders, executor, submitit
        self._tasks = {task.number: task for task in tasks}
        self._cells: dict[int, str] = {}
        self._open = set(self._tasks)
        run = f"{time.time_ns():x}"
        chunks = [
            Chunk(orders._replace(team=_Told(Path())), part, str(folder / f"progress-{run}-{index}.jsonl"))
            for index, part in enumerate(_slices(tasks, orders.setup.controls.jobs))
        ]
        self._read = {chunk.told: 0 for chunk in chunks}
        with executor.batch():
            jobs = [executor.submit(chunk) for chunk in chunks]
        self._jobs = list(zip(jobs, chunks, strict=True))
        self._tried = dict.fromkeys(self._read, 0)

    def run(self) -> None:
        """Wait until all tasks have ended."""
        while self._jobs:
            finished = [(job, chunk) for job, chunk in self._jobs if job.done()]
            self._hear()
            for job, chunk in finished:
                self._jobs.remove((job, chunk))
                self._finished(job, chunk)
            if self._jobs:
                time.sleep(POLL_SECONDS)

    def _finished(self, job: Any, chunk: Chunk) -> None:
        """Begin a job again that died, as often as a cell may be tried."""
        error = job.exception()
        left = [task for task in chunk.tasks if task.number in self._open]
        if error is None and not left:
            return
        self._tried[chunk.told] += 1
        reason = f"its job {job.job_id} ended early"
        if self._tried[chunk.told] <= self._orders.setup.controls.retries:
            for task in left:
                self._orders.team.task_again(str(job.job_id), task, reason)
            again = replace(chunk, tasks=[replace(task, again=True) for task in left])
            self._jobs.append((self._executor.submit(again), again))
            return
        for task in left:
            sentence = f"{reason} ({str(error).strip().splitlines()[0] if error else 'without saying why'})"
            cell = self._cells.get(task.number, "")
            answer = self._orders.fail(self._orders.setup, cell, task, sentence)
            self._end(str(job.job_id), task, answer)

    def _hear(self) -> None:
        """Read what the jobs told since the last time.

        Raises:
            TTABenchError: If one was refused.
        """
        for told in self._read:
            for line in self._lines(told):
                if "refused" in line:
                    raise _refused(line["refused"]).error()
                task, worker = self._tasks[line["task"]], line["worker"]
                if "began" in line:
                    self._orders.team.task_started(worker, task)
                elif "event" in line:
                    self._event(worker, task, Event(**line["event"]))
                elif "again" in line:
                    self._orders.team.task_again(worker, task, line["again"])
                else:
                    self._end(worker, task, _answer(line["answer"]))

    def _event(self, worker: str, task: Task, event: Event) -> None:
        if event.kind == "cell":
            self._cells[task.number] = event.text
        self._orders.team.heard(worker, task, event)

    def _end(self, worker: str, task: Task, answer: Answer) -> None:
        if answer.refused is not None:
            raise answer.refused.error()
        if task.number in self._open:  # a job that was queued again finds its first tasks done
            self._open.remove(task.number)
            self._orders.team.task_ended(worker, task, answer)

    def _lines(self, told: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of a file that are whole and were not read before."""
        path = Path(told)
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read[told])
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read[told] += len(line)
                yield json.loads(line)

    def stop(self) -> None:
        """Cancel the jobs that still run: what they measured is in the store."""
        for job, _ in self._jobs:
            job.cancel(check=False)


def _settings(texts: Sequence[str]) -> dict[str, Any]:
    """Return the parameters of submitit by name; numbers are numbers."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise BadInputError(
                f"slurm must be like slurm_partition=gpu or timeout_min=240, got {text!r}", options=("slurm",)
            )
        found[name] = yaml.safe_load(value)
    return found


def _slices(tasks: Sequence[Task], jobs: int) -> list[list[Task]]:
    """Return the tasks of each job: neighbours, which read the same images, stay together."""
    count = min(jobs, len(tasks))
    borders = [index * len(tasks) // count for index in range(count + 1)]
    return [list(tasks[begin:end]) for begin, end in pairwise(borders)]


def _plain(answer: Answer) -> dict[str, Any]:
    return {
        "ended": None if answer.ended is None else list(answer.ended),
        "refused": None if answer.refused is None else list(answer.refused),
        "detail": answer.detail,
    }


def _answer(plain: dict[str, Any]) -> Answer:
    ended, why = plain["ended"], plain["refused"]
    return Answer(
        None if ended is None else Ended(*ended),
        None if why is None else _refused(why),
        plain["detail"],
    )


def _refused(plain: list[Any]) -> Refused:
    return Refused(plain[0], plain[1], tuple(plain[2]))
