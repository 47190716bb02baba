# SPDX-License-Identifier: Apache-2.0
"""Run one task of a run in this process, whichever executor began it: rows go to the shared store."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tta_bench.engine.executors.task import Answer, Event, Refused, Setup, Task, Tell, refused
from tta_bench.engine.objects import Objects
from tta_bench.engine.session import Session
from tta_bench.errors import Caution, TTABenchError
from tta_bench.records.sink import Sink
from tta_bench.records.store import Store
from tta_bench.records.writer import CellWriter
from tta_bench.spec import Cell, Manifest

_KEPT: dict[tuple[object, ...], Any] = {}
"""The store and the objects of the last run in this process: models and images serve many cells."""


def work(task: Task, setup: Setup, tell: Tell) -> Answer:
    """Run one task and return how it ended."""
    try:
        with _notes_told(tell):
            session = _session(setup, tell, task)
            (ended,) = session.run([task.cell], checked=True)
    except TTABenchError as error:
        return Answer(refused=refused(error))
    return Answer(ended=ended, detail=getattr(session.reporter, "detail", ""))


def check(cells: Sequence[Cell], setup: Setup) -> Refused | None:
    """Return why the first of the cells that cannot run here cannot; None: all can."""
    try:
        with _notes_told(lambda event: None):
            Session(Sink(_store(setup)), _Relay(lambda event: None), _objects(setup)).check(cells)
    except TTABenchError as error:
        return refused(error)
    return None


def _session(setup: Setup, tell: Tell, task: Task) -> Session:
    controls, sink = setup.controls, _ToldSink(_store(setup), tell)
    return Session(
        sink,
        _Relay(tell),
        _objects(setup),
        resume=controls.resume or task.again,
        force=controls.force,
        retime=sink.retime if controls.remeasure else None,
        probe_memory=controls.memory,
        threads=controls.threads,
        shard=(task.index, task.count) if task.count > 1 else None,
    )


def _store(setup: Setup) -> Store:
    store: Store = _kept("store", setup.controls.output, lambda: Store(setup.controls.output))
    return store


def _objects(setup: Setup) -> Objects:
    objects: Objects = _kept("objects", setup.decoders, lambda: Objects(workers=setup.decoders))
    return objects


def _kept(kind: str, key: object, make: Any) -> Any:
    if (kind, key) not in _KEPT:
        for other in [one for one in _KEPT if one[0] == kind]:
            del _KEPT[other]
        _KEPT[kind, key] = make()
    return _KEPT[kind, key]


class _ToldSink(Sink):
    """A store that tells the id of each cell that begins."""

    def __init__(self, store: Store, tell: Tell) -> None:
        super().__init__(store)
        self._tell = tell

    def begin(self, manifest: Manifest, *, rows: int, first: int = 0) -> CellWriter:
        self._tell(Event("cell", manifest.id))
        return super().begin(manifest, rows=rows, first=first)

    def shard(self, cell: str, index: int, count: int) -> Sink:
        return _ToldSink(self._store.shard(cell, index, count), self._tell)


class _Relay:
    """Tell the driver what a reporter of this process would show.

    Attributes:
        detail: The last detail of a cell that ended.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell, self.detail = tell, ""

    def cell_started(self, label: str, done: int, total: int) -> None:
        self._tell(Event("started", done=done, total=total))

    def preparing(self, method: str, done: int, total: int | None) -> None:
        pass  # many processes prepare at once, and none of it is an image of the stream

    def advanced(self, images: int) -> None:
        self._tell(Event("advanced", done=images))

    def cell_ended(self, label: str, status: str, detail: str = "") -> None:
        self.detail = detail


@contextmanager
def _notes_told(tell: Tell) -> Iterator[None]:
    """Tell the driver our own cautions, which it shows; warnings of libraries are none of the user's."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", r".torch\.jit", FutureWarning
        )  # torch's own, while timm is imported
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, Caution):
                tell(Event("note", str(message)))
            else:
                shown(message, category, *where, **more)

        warnings.showwarning = show
        yield
