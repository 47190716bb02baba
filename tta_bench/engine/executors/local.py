# SPDX-License-Identifier: Apache-2.0
"""Run cells in processes of this machine: each may die, hang or be killed without harm to the others."""

from __future__ import annotations

import math
import os
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import wait

import torch

from tta_bench.engine.executors.lane import PATIENCE, Lane
from tta_bench.engine.executors.schedule import Schedule
from tta_bench.engine.executors.task import Answer, Orders, Refused, Task, shards_of, tasks_of
from tta_bench.errors import BadInputError

TICK = 1.0
"""Seconds after which the driver looks around even if nothing happened."""


def run_locally(orders: Orders) -> None:
    """Run the cells of orders in processes of this machine.

    Raises:
        TTABenchError: If they cannot run here, or the store cannot be written.
    """
    tasks = tasks_of(orders.cells, orders.setup.controls.jobs, shards_of(orders.setup.controls))
    orders.team.planned(tasks)
    run_tasks_locally(orders, tasks)


def run_tasks_locally(orders: Orders, tasks: list[Task]) -> None:
    """Run some tasks of orders in processes of this machine; raises as `run_locally`."""
    driver = _Driver(orders, tasks)
    try:
        driver.check()
        driver.run()
    finally:
        driver.stop()


class _Driver:
    """The processes of one run and the tasks that wait for them."""

    def __init__(self, orders: Orders, tasks: list[Task]) -> None:
        self._orders, self._schedule = orders, Schedule(tasks)
        self._cells = [task.cell for task in tasks if task.index == 0 or task.number == tasks[0].number]
        self._limit = orders.setup.controls.cell_timeout or math.inf
        self._tried = dict.fromkeys((task.number for task in tasks), 0)
        self._woken, self._waker = Pipe(duplex=False)
        count = min(orders.setup.controls.jobs, len(tasks))
        self._lanes = [
            Lane(str(index + 1), _environment(orders, index), self._wake) for index in range(count)
        ]

    def _wake(self) -> None:
        self._waker.send_bytes(b"!")

    def check(self) -> None:
        """Let one process refuse cells that cannot run here, while the others begin."""
        lane = self._lanes[0]
        try:
            lane.pid = lane.future.result()
            lane.call(self._orders.check, self._cells, self._orders.setup)
            refused: Refused | None = lane.future.result()
        except BrokenProcessPool as error:
            raise BadInputError(
                "the process that checks the cells died before it could say why; a model or its data may not fit into "
                "memory, or a plug-in ends the process when it is imported"
            ) from error
        if refused is not None:
            raise refused.error()

    def run(self) -> None:
        """Hand out tasks until all have ended."""
        while self._turn():
            lanes, limit = [lane for lane in self._lanes if lane.alive], self._limit
            ends = [limit - lane.seconds() for lane in lanes if lane.task]
            wait([self._woken, *(lane.ear for lane in lanes)], max(0.0, min([TICK, *ends])))
            while self._woken.poll():
                self._woken.recv_bytes()

    def _turn(self) -> bool:
        """Hear every process, take what is finished, hand out what waits; False when there is nothing left."""
        for lane in self._lanes:
            if not lane.alive:
                if len(self._schedule):
                    lane.begin()
                continue
            self._hear(lane)
            if lane.future.done():
                self._take(lane)
            elif lane.task is not None and lane.seconds() > self._limit:
                self._expire(lane, lane.task)
        return bool(len(self._schedule)) or any(lane.task for lane in self._lanes)

    def _hear(self, lane: Lane) -> None:
        for event in lane.events():
            if lane.task is None:
                continue
            if event.kind == "cell":
                lane.cell, lane.began = event.text, time.monotonic()
            else:
                self._orders.team.heard(lane.name, lane.task, event)

    def _take(self, lane: Lane) -> None:
        """Take what a process finished, and give it the next task."""
        try:
            result = lane.future.result()
        except BrokenProcessPool:
            self._died(lane)
            return
        if lane.task is not None:
            self._hear(lane)
            task, lane.task = lane.task, None
            if result.refused is not None:
                raise result.refused.error()
            self._orders.team.task_ended(lane.name, task, result)
        elif isinstance(result, int):
            lane.pid = result
        task_next = self._schedule.take(lane.name)
        if task_next is not None:
            self._orders.team.task_started(lane.name, task_next)
            lane.run(self._orders.work, task_next, self._orders.setup)

    def _died(self, lane: Lane) -> None:
        """Let the task wait again that a dead process had, as often as it may be tried."""
        task, cell = lane.task, lane.cell
        lane.end()
        if task is None:
            raise BadInputError("a worker process died while it began; see what it printed")
        self._tried[task.number] += 1
        if self._tried[task.number] > self._orders.setup.controls.retries:
            died = "died" if self._tried[task.number] == 1 else f"died {self._tried[task.number]} times"
            self._ended(lane, task, cell, f"the process that computed it {died} (killed, or out of memory)")
        else:
            self._orders.team.task_again(lane.name, task, "its process died")
            self._schedule.give_back(replace(task, again=True))

    def _expire(self, lane: Lane, task: Task) -> None:
        """End a task that takes longer than a cell may."""
        cell = lane.cell
        lane.end()
        self._ended(lane, task, cell, f"it took longer than cell_timeout={self._limit} seconds")

    def _ended(self, lane: Lane, task: Task, cell: str, sentence: str) -> None:
        answer: Answer = self._orders.fail(self._orders.setup, cell, task, sentence)
        self._orders.team.task_ended(lane.name, task, answer)

    def stop(self) -> None:
        """Let every process keep its rows and end."""
        until = time.monotonic() + PATIENCE
        for lane in self._lanes:
            lane.stop()
        for lane in self._lanes:
            lane.wait(until)


def _environment(orders: Orders, index: int) -> dict[str, str]:
    """Return the variables of a worker's process: the one GPU that it sees, where there are any."""
    if not any(cell.device == "cuda" for cell in orders.cells):
        return {}
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
    return {"CUDA_VISIBLE_DEVICES": seen[index % len(seen)]} if seen else {}
