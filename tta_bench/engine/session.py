# SPDX-License-Identifier: Apache-2.0
"""Run cells into a store: reuse what is there, continue after a failure, report progress."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import torch

from tta_bench.data.stream import Stream
from tta_bench.engine.cell import CellJob, CellRunner, Scored
from tta_bench.engine.globals import torch_settings
from tta_bench.engine.identity import (
    MethodInfo,
    Resolved,
    describe_method,
    is_baseline,
    make_manifest,
    scores_key,
)
from tta_bench.engine.meter import peak_rss_mib
from tta_bench.engine.objects import Objects
from tta_bench.engine.ports import RecordStore, Reporter, RowWriter, SourceScores
from tta_bench.engine.rows import source_scores
from tta_bench.engine.split import SplitBatches
from tta_bench.engine.watch import Watch
from tta_bench.errors import StoreError
from tta_bench.method import Method, Task
from tta_bench.models.source import SourceModel
from tta_bench.registry import FAILURES, brief
from tta_bench.spec import Cell, Manifest, Outcome
from tta_bench.spec.manifest import Status
from tta_bench.steps import check_compatible

SCORES_BATCH = 64
DONE = ("complete", "collapsed")
RESTARTABLE = ("image", "batch")
"""Reset rules under which an interrupted cell resumes at the next batch."""


class Ended(NamedTuple):
    """How one cell of a run ended: its id, its label and ``complete``, ``collapsed``, ``failed`` or ``reused``."""

    cell: str
    label: str
    status: str


@dataclass
class Session:
    """One run over cells.

    Attributes:
        store: Where rows go.
        reporter: Shows the progress.
        objects: The objects that the names of cells stand for.
        resume: Whether interrupted cells resume where they stopped, and not from their start.
        force: Whether complete cells are computed again.
        probe_memory: Whether CPU memory is probed.
        scored: Told every batch with its scores, for what records do not hold.
    """

    store: RecordStore
    reporter: Reporter
    objects: Objects = field(default_factory=Objects)
    resume: bool = False
    force: bool = False
    probe_memory: bool = True
    scored: Scored | None = None

    def run(self, cells: Sequence[Cell]) -> list[Ended]:
        """Run the cells in order and return how each ended; torch's global settings are as before afterwards.

        Raises:
            TTABenchError: Before anything is computed, if a method, a model and a dataset do not fit.
        """
        with torch_settings():
            self._check(cells)
            return [self._cell(cell) for cell in cells]

    def _check(self, cells: Sequence[Cell]) -> None:
        """Refuse what cannot run: missing data before any model is fetched, then methods that do not fit."""
        for cell in {cell.dataset: cell for cell in reversed(cells)}.values():
            self.objects.open(cell, cell.each_shift()[:1])
        for cell in {(cell.method, cell.model, cell.dataset): cell for cell in cells}.values():
            check_compatible(self.objects.method(cell), self.objects.model(cell))
            self.objects.split(cell)

    def _cell(self, cell: Cell) -> Ended:
        one, problem = self._resolve(cell)
        manifest = make_manifest(one)
        kept = self.store.manifest(manifest.id)
        if kept is not None and kept.status in DONE and not self.force:
            self.reporter.cell_ended(cell.label, "reused")
            return Ended(manifest.id, cell.label, "reused")
        start = 0
        if self.resume and cell.reset in RESTARTABLE and kept is not None and kept.status == "running":
            start = one.stream.border(self.store.rows_done(manifest.id))
        self.reporter.cell_started(cell.label, start, len(one.stream))
        before = replace(kept.outcome, init_ms=None) if start and kept is not None else Outcome()
        manifest = replace(manifest, started=_now(), outcome=before)
        if problem is not None:
            return self._failed(one, self.store.begin(manifest, resume=False), manifest, problem)
        return self._compute(one, manifest, start)

    def _resolve(self, cell: Cell) -> tuple[Resolved, BaseException | None]:
        """Return a cell with its objects, and why its method says nothing of itself if it fails to."""
        method, source = self.objects.method(cell), self.objects.model(cell)
        stream, split = self.objects.stream(cell, source), self.objects.split(cell)
        info, problem = _describe(method, source, self.objects.watch(source))
        return Resolved(cell, method, self.objects.dataset(cell), source, stream, split, info), problem

    def _compute(self, one: Resolved, manifest: Manifest, start: int) -> Ended:
        writer, watch = self.store.begin(manifest, resume=start > 0), self.objects.watch(one.source)

        def noted(outcome: Outcome) -> None:
            if one.cell.reset in RESTARTABLE:
                self.store.note(replace(manifest, outcome=outcome))

        try:
            split = None if one.split is None else SplitBatches(one.split, one.source, one.cell.seed)
            job = CellJob(
                method=one.method,
                source=one.source,
                stream=one.stream,
                reset=one.cell.reset,
                seed=one.cell.seed,
                task=_task(one, split),
                split=split,
                scores=None if is_baseline(one.method) else self._scores(one, manifest),
                probe_memory=self.probe_memory,
                views=one.cell.views,
                scored=self.scored,
                watch=watch,
            )
            runner = CellRunner(job, writer, self.reporter.advanced, noted, manifest.outcome)
            outcome = runner.run(start)
            watch.check_bytes(type(one.method).__name__)
        except StoreError:
            raise
        except KeyboardInterrupt:
            writer.close()
            raise
        except FAILURES as error:
            return self._failed(one, writer, manifest, error)
        status: Status = "complete" if outcome.finite else "collapsed"
        return self._end(writer, replace(manifest, outcome=outcome, status=status))

    def _failed(self, one: Resolved, writer: RowWriter, manifest: Manifest, error: BaseException) -> Ended:
        if not self.objects.watch(one.source).sound:
            self.objects.forget(one.source)
        text = "".join(traceback.format_exception(error))
        return self._end(writer, replace(manifest, status="failed", error=text), brief(error))

    def _end(self, writer: RowWriter, manifest: Manifest, detail: str = "") -> Ended:
        outcome = replace(manifest.outcome, peak_rss_mib=peak_rss_mib())
        self.store.finish(writer, replace(manifest, finished=_now(), outcome=outcome))
        self.reporter.cell_ended(manifest.cell.label, manifest.status, detail)
        return Ended(manifest.id, manifest.cell.label, manifest.status)

    def _scores(self, one: Resolved, manifest: Manifest) -> SourceScores:
        """Return what the source model alone says of the stream, computed once per model, shift and order."""
        each = []
        for part in one.stream.parts:
            alone = Stream([part], SCORES_BATCH, one.stream.preprocess)
            key = scores_key(one, manifest.protocol, part, alone.order_hash())
            scores = self.store.scores(key)
            if scores is None or len(scores.prediction) != len(alone):
                scores = _predict(one.source, alone)
                self.store.put_scores(key, scores)
            each.append(scores)
        return SourceScores(*(one.stream.in_order(column) for column in zip(*each, strict=True)))


def _describe(method: Method, source: SourceModel, watch: Watch) -> tuple[MethodInfo, BaseException | None]:
    """Return what a method says of itself, or nothing and why."""
    try:
        info = describe_method(method, source)
        watch.check(type(method).__name__)
        return info, None
    except FAILURES as error:
        return MethodInfo(), error


def _task(one: Resolved, split: SplitBatches | None) -> Task:
    wants_length = "stream_length" in one.method.card.needs
    return Task(
        num_classes=one.source.num_classes,
        class_names=one.source.class_names,
        batch_size=one.cell.batch_size,
        stream_length=len(one.stream) if wants_length else None,
        source=split,
    )


@torch.no_grad()
def _predict(source: SourceModel, stream: Stream) -> SourceScores:
    batches = (batch.images.to(source.device).to(source.dtype) / 255 for batch in stream.from_row())
    each = [source_scores(source.logits(images)) for images in batches]
    return SourceScores(*(np.concatenate(column) for column in zip(*each, strict=True)))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
