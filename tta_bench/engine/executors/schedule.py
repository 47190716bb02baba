# SPDX-License-Identifier: Apache-2.0
"""Which task a free worker takes next: one on the images that it has, or else the longest line of the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable

from tta_bench.engine.executors.task import Task


class Schedule:
    """Tasks that wait, in lines of those that read the same images.

    Args:
        tasks: In the order of the plan.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._lines: dict[Hashable, deque[Task]] = {}
        self._own: dict[str, Hashable] = {}
        for task in tasks:
            self._lines.setdefault(task.stream, deque()).append(task)

    def __len__(self) -> int:
        """Return how many tasks wait."""
        return sum(map(len, self._lines.values()))

    def take(self, worker: str) -> Task | None:
        """Return the next task of a worker, None if none waits.

        It goes on with its line; then it begins one that nobody works on; then it helps with the longest.
        """
        line = self._own.get(worker)
        if line not in self._lines:
            taken = {self._own[other] for other in self._own if other != worker}
            free = [key for key in self._lines if key not in taken]
            line = free[0] if free else max(self._lines, key=lambda key: len(self._lines[key]), default=None)
        if line is None:
            return None
        self._own[worker] = line
        task = self._lines[line].popleft()
        if not self._lines[line]:
            del self._lines[line]
        return task

    def give_back(self, task: Task) -> None:
        """Let a task wait again, before all others of its line."""
        self._lines.setdefault(task.stream, deque()).appendleft(task)
