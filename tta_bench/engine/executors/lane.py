# SPDX-License-Identifier: Apache-2.0
"""One worker process: a pool of one, so that its death, or its end by force, takes no other with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from tta_bench.engine.executors.task import Answer, Event, Setup, Task, Work

PATIENCE = 10.0
"""Seconds that a worker has to keep its rows when it is asked to stop."""
STOP = getattr(signal, "SIGUSR1", signal.SIGTERM)
"""Signals that ask a worker to stop; a terminal or SLURM signals all processes of a group, and the driver decides."""
LEFT_TO_THE_DRIVER = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2")
    if getattr(signal, name, STOP) != STOP
)
TELLING_SECONDS = 0.2
"""Seconds between a worker's reports of its images."""


class Lane:
    """A worker process and the task that it runs.

    Args:
        name: Of the worker.
        environment: Variables of its process.
        wake: Called whenever something of it is finished.
    """

    def __init__(self, name: str, environment: Mapping[str, str], wake: Callable[[], None]) -> None:
        self.name, self._environment, self._wake = name, environment, wake
        self.task: Task | None = None
        self.cell, self.began, self.pid = "", 0.0, 0
        self.begin()

    def begin(self) -> None:
        """Begin a process, also in the place of one that is gone."""
        context = multiprocessing.get_context("spawn")
        self.ear, mouth = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(1, context, _settle, (mouth,))
        with _environment(self._environment):  # the process is made by the first call
            self.future: Future[Any] = self._submit(os.getpid)
        mouth.close()
        self.alive = True

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future = self._pool.submit(function, *arguments)
        future.add_done_callback(lambda done: self._wake())
        return future

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function of a module there."""
        self.future = self._submit(function, *arguments)

    def run(self, work: Work, task: Task, setup: Setup) -> None:
        """Run a task there."""
        self.task, self.cell = task, ""
        self.call(_worked, work, task, setup)

    def events(self) -> Iterator[Event]:
        """Yield what the process said by now."""
        with suppress(EOFError, OSError):
            while self.ear.poll():
                yield self.ear.recv()

    def seconds(self) -> float:
        """Return for how long the task has been computing; 0 while it loads what it needs."""
        return time.monotonic() - self.began if self.task is not None and self.cell else 0.0

    def end(self) -> None:
        """End the process at once, whatever it does, or clear up after it if it is dead."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.ear.close()
        self.task, self.pid, self.alive = None, 0, False

    def stop(self) -> None:
        """Ask the process to keep its rows and stop; it does not wait, see `wait`."""
        if self.alive and self.pid and not self.future.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, STOP)

    def wait(self, until: float) -> None:
        """Wait for the process to stop, and end it if it does not."""
        if not self.alive:
            return
        while not self.future.done() and time.monotonic() < until:
            for _ in self.events():  # so that it is not held up by what it says
                pass
            time.sleep(0.01)
        if self.future.done():
            self._pool.shutdown(wait=True, cancel_futures=True)
        else:
            self.end()


class _Mouth:
    """Where this process tells how it gets on.

    Attributes:
        pipe: To the driver; None in a process that is no worker.
    """

    pipe: Connection | None = None

    def __init__(self) -> None:
        self._images, self._told = 0, time.monotonic()

    def tell(self, event: Event) -> None:
        """Tell something, images now and then."""
        if event.kind == "advanced":
            self._images += event.done
            if time.monotonic() - self._told < TELLING_SECONDS:
                return
        self.say_images()
        if event.kind != "advanced":
            self._send(event)

    def say_images(self) -> None:
        """Tell of the images that were not told of yet."""
        if self._images:
            self._send(Event("advanced", done=self._images))
        self._images, self._told = 0, time.monotonic()

    def _send(self, event: Event) -> None:
        with suppress(OSError):  # the driver is gone, and so is this process soon
            assert self.pipe is not None
            self.pipe.send(event)


def _worked(work: Work, task: Task, setup: Setup) -> Answer:
    mouth = _Mouth()
    answer = work(task, setup, mouth.tell)
    mouth.say_images()
    return answer


def _settle(mouth: Connection) -> None:
    """Prepare a worker: it stops when the driver asks it to, leaves other signals to it, and does not outlive it."""
    _Mouth.pipe = mouth
    for number in LEFT_TO_THE_DRIVER:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(STOP, _stop)
    threading.Thread(target=_end_with_the_driver, daemon=True).start()


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end_with_the_driver() -> None:
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
