# SPDX-License-Identifier: Apache-2.0
"""Run cells as tasks of a Ray cluster: Ray places them, tries them again when a process or a node dies, and scales.

An interrupted cell always resumes there: Ray hands a task that it tries again to a process as if it were new.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from tta_bench.engine.executors.extras import imported
from tta_bench.engine.executors.lane import TELLING_SECONDS
from tta_bench.engine.executors.task import (
    Answer,
    Check,
    Event,
    Orders,
    Refused,
    Setup,
    Task,
    Work,
    shards_of,
    tasks_of,
)
from tta_bench.errors import BadInputError
from tta_bench.spec import Cell, Controls

MIB = 2**20
POLL_SECONDS = 0.2
CONNECT_SECONDS = 10.0


def run_on_ray(orders: Orders) -> None:
    """Run the cells of orders on a Ray cluster.

    Raises:
        TTABenchError: If Ray is not installed or cannot be reached, a cell cannot run there, or the store cannot be
            written.
    """
    ray = imported("ray", "ray")
    with _cluster(ray, orders.setup.controls):
        driver = _Driver(ray, orders)
        try:
            driver.check()
            driver.run()
        finally:
            driver.stop()


class _Driver:
    """The tasks of one run on a cluster."""

    def __init__(self, ray: Any, orders: Orders) -> None:
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        controls = replace(orders.setup.controls, resume=True)
        self._ray, self._orders = ray, orders._replace(setup=orders.setup._replace(controls=controls))
        # On the driver's own node, so that the loss of another takes nothing but its tasks.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._tasks = {
            task.number: task for task in tasks_of(orders.cells, self._workers(), shards_of(controls))
        }
        orders.team.planned(list(self._tasks.values()))
        self._began: dict[int, float] = {}
        self._cells: dict[int, str] = {}
        self._worker: dict[int, str] = {}
        self._refs: dict[Any, int] = {}

    def _workers(self) -> int:
        """Return how many cells the cluster can run at once as it is."""
        there, needed = self._ray.cluster_resources(), self._needs(self._orders.cells[0])
        cpus = there.get("CPU", 0) // needed["num_cpus"]
        return int(min(cpus, there.get("GPU", 0)) if needed["num_gpus"] else cpus)

    def _needs(self, cell: Cell) -> dict[str, Any]:
        controls = self._orders.setup.controls
        needs: dict[str, Any] = {"num_cpus": controls.threads or 1, "num_gpus": int(cell.device == "cuda")}
        if controls.worker_memory is not None:
            needs["memory"] = controls.worker_memory * MIB
        return needs

    def check(self) -> None:
        """Let a process of the cluster refuse cells that cannot run there."""
        cells = list(self._orders.cells)
        call = self._ray.remote(_checked).options(**self._needs(cells[0]), max_retries=2)
        refused = self._ray.get(call.remote(self._orders.check, cells, self._orders.setup))
        if refused is not None:
            raise refused.error()

    def run(self) -> None:
        """Hand all tasks to Ray, and wait until they have ended."""
        call = self._ray.remote(_worked)
        retries = self._orders.setup.controls.retries
        setup, work = self._ray.put(self._orders.setup), self._orders.work
        for task in self._tasks.values():
            options = {**self._needs(task.cell), "max_retries": retries, "name": task.label}
            ref = call.options(**options).remote(work, task, setup, self._queue)
            self._refs[ref] = task.number
        while self._refs:
            finished, _ = self._ray.wait(list(self._refs), timeout=POLL_SECONDS)
            self._hear()
            for ref in finished:
                self._take(ref, self._tasks[self._refs.pop(ref)])
            self._expire()

    def _take(self, ref: Any, task: Task) -> None:
        worker = self._worker.get(task.number, "ray")
        try:
            answer: Answer = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            first = str(error).strip().splitlines()[0]
            sentence = f"the process that computed it died ({type(error).__name__}: {first})"
            answer = self._fail(task, sentence)
        if answer.refused is not None:
            raise answer.refused.error()
        self._orders.team.task_ended(worker, task, answer)

    def _fail(self, task: Task, sentence: str) -> Answer:
        return self._orders.fail(self._orders.setup, self._cells.get(task.number, ""), task, sentence)

    def _hear(self) -> None:
        waiting = self._queue.qsize()
        for worker, number, event in self._queue.get_nowait_batch(waiting) if waiting else ():
            task = self._tasks[number]
            if event.kind == "began":
                if number in self._worker:
                    self._orders.team.task_again(worker, task, "Ray tried it again")
                self._began.pop(number, None)
                self._orders.team.task_started(worker, task)
            elif event.kind == "cell":
                self._cells[number], self._began[number] = event.text, time.monotonic()
            else:
                self._orders.team.heard(worker, task, event)
            self._worker[number] = worker

    def _expire(self) -> None:
        """End tasks that take longer than a cell may."""
        limit = self._orders.setup.controls.cell_timeout
        for ref, number in list(self._refs.items()) if limit else ():
            began = self._began.get(number)
            if began is None or time.monotonic() - began <= (limit or 0):
                continue
            self._ray.cancel(ref, force=True)
            del self._refs[ref]
            answer = self._fail(self._tasks[number], f"it took longer than cell_timeout={limit} seconds")
            self._orders.team.task_ended(self._worker.get(number, "ray"), self._tasks[number], answer)

    def stop(self) -> None:
        """Cancel what still runs: what was measured is in the store."""
        for ref in self._refs:
            with suppress(Exception):  # the cluster may be gone
                self._ray.cancel(ref, force=True)
        with suppress(Exception):
            self._queue.shutdown(force=True)


def _checked(check: Check, cells: Sequence[Cell], setup: Setup) -> Refused | None:
    return check(cells, setup)


def _worked(work: Work, task: Task, setup: Setup, queue: Any) -> Answer:
    """Run a task in a process of the cluster, and tell the driver's queue how it gets on."""
    import ray

    worker = f"{ray.util.get_node_ip_address()}:{os.getpid()}"
    images, told = 0, time.monotonic()

    def say(*events: Event) -> None:
        with suppress(Exception):  # who is told never decides about a cell
            queue.put_nowait_batch([(worker, task.number, event) for event in events])

    def tell(event: Event) -> None:
        nonlocal images, told
        if event.kind == "advanced":
            images += event.done
            if time.monotonic() - told < TELLING_SECONDS:
                return
        waiting = [Event("advanced", done=images)] if images else []
        images, told = 0, time.monotonic()
        say(*waiting, *([] if event.kind == "advanced" else [event]))

    say(Event("began"))
    answer = work(task, setup, tell)
    if images:
        say(Event("advanced", done=images))
    return answer


@contextmanager
def _cluster(ray: Any, controls: Controls) -> Iterator[None]:
    """Connect to a cluster inside, unless this process already is.

    Raises:
        BadInputError: If there is none at the address.
    """
    if ray.is_initialized():
        yield
        return
    local = controls.ray_address == "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # its workers would yield to all else, and clocks would tell
    more = {"num_cpus": controls.jobs * (controls.threads or 1), "include_dashboard": False} if local else {}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        host, colon, port = controls.ray_address.rpartition(":")
        if colon and "/" not in host:  # Ray itself waits for a minute, and then ends the process
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        ray.init(address=controls.ray_address, log_to_driver=False, configure_logging=False, **more)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        problem = str(error).strip().splitlines()[0]
        raise BadInputError(
            f"ray_address expects a Ray cluster that can be reached, got {controls.ray_address!r} ({problem}); start "
            "one with `ray start --head`, or give ray_address=local to start one for this run",
            options=("ray_address",),
        ) from error
    with suppress(ValueError):  # outside the main thread
        signal.signal(signal.SIGTERM, handler)  # Ray puts its own
    try:
        yield
    finally:
        ray.shutdown()
