# SPDX-License-Identifier: Apache-2.0
"""Run the cells of a plan into a store: reuse what is there, go on after a failure, tell how it goes."""

from __future__ import annotations

import traceback
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import torch

from tta_bench.data.dataset import Dataset, Opening, Shift
from tta_bench.data.images.source import ImageSource
from tta_bench.data.stream import Part, Stream, choose
from tta_bench.engine.cell import CellJob, CellOutcome, CellRunner, Scored
from tta_bench.engine.identity import Told, is_baseline, manifest_facts, scores_key, told
from tta_bench.engine.machine import resolve_device
from tta_bench.engine.meter import peak_rss_mib
from tta_bench.engine.planning import CellPlan
from tta_bench.engine.ports import RecordStore, Reporter, RowWriter, SourceScores
from tta_bench.engine.rows import source_scores
from tta_bench.engine.split import SplitBatches, open_split, source_data
from tta_bench.errors import StoreError
from tta_bench.method import Task
from tta_bench.models.loading import load_model
from tta_bench.models.source import SourceModel
from tta_bench.registry import FAILURES, brief
from tta_bench.spec import RunSpec
from tta_bench.steps import check_compatible

SCORES_BATCH = 64
KEPT_MODELS = 4
DONE = ("complete", "collapsed")
RESTARTABLE = ("image", "batch")
"""Reset rules under which an interrupted cell goes on at the next batch."""


class Ended(NamedTuple):
    """How one cell of a run ended: its id, its label and ``complete``, ``collapsed``, ``failed`` or ``reused``."""

    cell: str
    label: str
    status: str


@dataclass
class Session:
    """One run over a plan.

    Attributes:
        spec: What was asked.
        store: Where rows go.
        reporter: Who is told.
        resume: Whether cells that were interrupted go on where they stopped, and not from their start.
        force: Whether cells that are complete are computed again.
        probe_memory: Whether CPU memory is probed.
        scored: Told every batch with its scores, for what records do not hold.
    """

    spec: RunSpec
    store: RecordStore
    reporter: Reporter
    resume: bool = False
    force: bool = False
    probe_memory: bool = True
    scored: Scored | None = None
    _models: OrderedDict[tuple[object, ...], SourceModel] = field(default_factory=OrderedDict)
    _images: dict[Shift, ImageSource] = field(default_factory=dict)
    _splits: dict[str, ImageSource] = field(default_factory=dict)

    def run(self, cells: Sequence[CellPlan]) -> list[Ended]:
        """Run the cells in order and return how each ended.

        Raises:
            TTABenchError: Before anything is computed, if a method, a model and a dataset do not fit.
        """
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False  # on by default; float32 would not be what the protocol says
        for cell in {c.dataset.name: c for c in reversed(cells)}.values():
            self._open(cell.dataset, cell.shifts[:1])  # missing data is told before any model is fetched
        for cell in {(c.name, c.model, c.dataset.name): c for c in cells}.values():
            check_compatible(cell.method, self._model(cell))
            self._split(cell)
        return [self._cell(cell) for cell in cells]

    def _cell(self, cell: CellPlan) -> Ended:
        source = self._model(cell)
        stream = self._stream(cell, source)
        said, problem = self._told(cell, source)
        manifest = manifest_facts(cell, self.spec, source, stream, said, self._split(cell))
        status = self.store.status(manifest["cell"])
        if status in DONE and not self.force:
            self.reporter.cell_ended(cell.label, "reused")
            return Ended(manifest["cell"], cell.label, "reused")
        resume = self.resume and cell.reset in RESTARTABLE and status == "running"
        start = self._safe_rows(manifest["cell"], cell.batch_size, stream) if resume else 0
        self.reporter.cell_started(cell.label, start, len(stream))
        manifest["started"] = _now()
        if problem is not None:
            return self._end(cell, self.store.begin(manifest, resume=False), manifest | _failed(problem))
        return self._compute(cell, source, stream, manifest, start)

    @staticmethod
    def _told(cell: CellPlan, source: SourceModel) -> tuple[Told, BaseException | None]:
        """Return what the method says of itself, or nothing and why."""
        try:
            return told(cell.method, source), None
        except FAILURES as error:
            return Told(), error

    def _safe_rows(self, cell: str, batch_size: int, stream: Stream) -> int:
        """Return the last batch boundary up to which all rows are safe."""
        done, row = self.store.rows_done(cell), 0
        for part in stream.parts:
            count = len(part.positions)
            if done >= row + count:
                row += count
                continue
            return row + (done - row) // batch_size * batch_size
        return row

    def _compute(
        self, cell: CellPlan, source: SourceModel, stream: Stream, manifest: dict[str, Any], start: int
    ) -> Ended:
        known = self.store.noted(manifest["cell"]) if start else {}
        before = {name: known[name] for name in CellOutcome().facts() if name in known}
        manifest |= before
        writer = self.store.begin(manifest, resume=start > 0)

        def noted(facts: dict[str, Any]) -> None:
            if cell.reset in RESTARTABLE:
                self.store.note(manifest | facts)

        try:
            images = self._split(cell)
            split = None if images is None else SplitBatches(images, source, cell.seed)
            job = CellJob(
                method=cell.method,
                source=source,
                stream=stream,
                reset=cell.reset,
                seed=cell.seed,
                task=self._task(cell, source, stream, split),
                split=split,
                scores=None if is_baseline(cell.method) else self._scores(source, stream, manifest["spec"]),
                probe_memory=self.probe_memory,
                scored=self.scored,
            )
            outcome = CellRunner(job, writer, self.reporter.advanced, noted, before).run(start)
        except StoreError:
            raise
        except KeyboardInterrupt:
            writer.close()
            raise
        except FAILURES as error:
            return self._end(cell, writer, manifest | _failed(error))
        status = "complete" if outcome.finite else "collapsed"
        return self._end(cell, writer, manifest | vars(outcome) | {"status": status})

    def _end(self, cell: CellPlan, writer: RowWriter, manifest: dict[str, Any]) -> Ended:
        manifest |= {"finished": _now(), "peak_rss_mib": peak_rss_mib()}
        detail = manifest.pop("detail", "")
        self.store.finish(writer, manifest)
        self.reporter.cell_ended(cell.label, manifest["status"], detail)
        return Ended(manifest["cell"], cell.label, manifest["status"])

    def _model(self, cell: CellPlan) -> SourceModel:
        """Return the source model bound to the cell's classes, loading it if it was not used lately."""
        key = (cell.model, cell.dataset.class_names, cell.dataset.class_indices, cell.dataset.templates)
        if key not in self._models:
            self._models[key] = load_model(
                cell.model,
                cell.dataset.class_names,
                class_indices=cell.dataset.class_indices,
                templates=cell.dataset.templates,
                pretrained=self.spec.pretrained,
                seed=min(self.spec.seeds),
                precision=self.spec.precision,
                device=resolve_device(self.spec.device).type,
            )
            while len(self._models) > KEPT_MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(key)
        return self._models[key]

    def _stream(self, cell: CellPlan, source: SourceModel) -> Stream:
        self._open(cell.dataset, cell.shifts)
        parts = [
            Part(shift, self._images[shift], choose(self._images[shift], cell.subset, cell.seed))
            for shift in cell.shifts
        ]
        return Stream(parts, cell.batch_size, source.preprocess)

    def _open(self, dataset: Dataset, shifts: Sequence[Shift]) -> None:
        """Open the images of these shifts and let go of all others."""
        options = {"bad_image": self.spec.bad_image, **self.spec.options}
        kept = {shift: images for shift, images in self._images.items() if shift in shifts}
        missing = [shift for shift in shifts if shift not in kept]
        self._images = kept | {shift: dataset.open(Opening(shift, options=options)) for shift in missing}

    def _split(self, cell: CellPlan) -> ImageSource | None:
        """Return the source images of the cell's dataset where its method asks for them."""
        if not source_data(cell.method):
            return None
        name = cell.dataset.name
        if name not in self._splits:
            self._splits[name] = open_split(cell.dataset, cell.name, cell.method)
        return self._splits[name]

    @staticmethod
    def _task(cell: CellPlan, source: SourceModel, stream: Stream, split: SplitBatches | None) -> Task:
        wants_length = "stream_length" in cell.method.card.needs
        return Task(
            num_classes=source.num_classes,
            class_names=source.class_names,
            batch_size=cell.batch_size,
            stream_length=len(stream) if wants_length else None,
            source=split,
        )

    def _scores(self, source: SourceModel, stream: Stream, facts: dict[str, Any]) -> SourceScores:
        """Return what the source model alone says of the stream, computed once per model, shift and order."""
        found = []
        for part in stream.parts:
            one = Stream([part], SCORES_BATCH, stream.preprocess)
            key = scores_key(facts, str(part.shift), part.images.data_hash, one.order_hash())
            scores = self.store.scores(key)
            if scores is None or len(scores.prediction) != len(one):
                scores = _predict(source, one)
                self.store.put_scores(key, scores)
            found.append(scores)
        return SourceScores(*(np.concatenate(column) for column in zip(*found, strict=True)))


@torch.no_grad()
def _predict(source: SourceModel, stream: Stream) -> SourceScores:
    batches = (batch.images.to(source.device).to(source.dtype) / 255 for batch in stream.from_row())
    each = [source_scores(source.logits(images)) for images in batches]
    return SourceScores(*(np.concatenate(column) for column in zip(*each, strict=True)))


def _failed(error: BaseException) -> dict[str, Any]:
    """Return the facts of a failure: its traceback for the manifest, and type and first line for the reporter."""
    text = "".join(traceback.format_exception(error))
    return {"status": "failed", "error": text, "detail": brief(error)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
