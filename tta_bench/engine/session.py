# SPDX-License-Identifier: Apache-2.0
"""Run cells into a store: reuse what is there, continue after a failure, report progress."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tta_bench.checks.guard import settings_kept
from tta_bench.data.images.checked import Unread
from tta_bench.data.images.prefetch import pinned_memory
from tta_bench.data.images.source import ImageSource
from tta_bench.data.layouts.opening import require_one_origin
from tta_bench.data.stream import Part, Stream
from tta_bench.engine.baselines import Baselines
from tta_bench.engine.cell import CellJob, CellRunner, Scored
from tta_bench.engine.devices import chosen
from tta_bench.engine.encoding import Encoder
from tta_bench.engine.features import StreamFeatures, stream_features
from tta_bench.engine.globals import torch_settings
from tta_bench.engine.guests import Kept, QuietReporter, traceback_text
from tta_bench.engine.hearing import Heard, warnings_heard
from tta_bench.engine.identity import (
    MethodInfo,
    Resolved,
    describe_method,
    is_baseline,
    make_manifest,
)
from tta_bench.engine.initial import initial_key
from tta_bench.engine.load import LoadWatch
from tta_bench.engine.meter import peak_rss_mib
from tta_bench.engine.objects import Objects
from tta_bench.engine.passes import Passes
from tta_bench.engine.ports import RecordStore, Reporter, Retime, RowWriter
from tta_bench.engine.rows import Collected
from tta_bench.engine.split import SplitBatches
from tta_bench.engine.watch import Watch
from tta_bench.errors import Caution, PluginError
from tta_bench.method import Method, Task
from tta_bench.models.source import SourceModel
from tta_bench.registry import ANYTHING, brief
from tta_bench.spec import Cell, Manifest, Outcome, counter_seed
from tta_bench.spec.manifest import Status
from tta_bench.steps import check_compatible

DONE = ("complete", "collapsed")
COMPARED = ("torch", "timm", "open_clip_torch", "torchvision")
"""Libraries whose versions may change numbers."""
FAILS_ITS_CELLS = (PluginError,)
"""What a bad reader of images ends with; the cells of other datasets run."""
RESTARTABLE = ("image", "batch")
"""Reset rules under which an interrupted cell resumes at the next batch."""


class Ended(NamedTuple):
    """The end of one cell of a run: its id, its label and its status.

    That is ``complete``, ``collapsed``, ``failed``, ``reused``, ``remeasured``, or ``differs`` where a cell that was to
    be timed again did not give its predictions again.
    """

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
        retime: Keeps the times of complete cells that are timed again; None: they are not.
        probe_memory: Whether CPU memory is probed.
        scored: Called with every batch and its scores, for what records do not hold.
    """

    store: RecordStore
    reporter: Reporter
    objects: Objects = field(default_factory=Objects)
    resume: bool = False
    force: bool = False
    retime: Retime | None = None
    probe_memory: bool = True
    scored: Scored | None = None

    def __post_init__(self) -> None:
        """Let a reporter that fails fall silent."""
        self._told, self._warned = QuietReporter(self.reporter), set[tuple[str, str, str]]()
        self._heard = Heard()
        self._passes, self._timed_again = Passes(self.objects, ()), set[Path]()

    def run(self, cells: Sequence[Cell]) -> list[Ended]:
        """Run the cells in order and return how each ended; torch's global settings are as before afterwards.

        Raises:
            TTABenchError: Before anything is computed, if a method, a model and a dataset do not fit.
        """
        with torch_settings():
            with warnings_heard(self._heard):
                self._check(cells)
            self._passes = Passes(self.objects, cells)
            self.store.plan(cells)
            return [self._alone(cell) for cell in cells]

    def _alone(self, cell: Cell) -> Ended:
        """Run a cell whose numbers depend on no cell before it."""
        with (
            torch_settings(counter_seed("global", cell.seed)),
            chosen(torch.device(cell.device)),
            warnings_heard(self._heard),
        ):
            return self._cell(cell)

    def _check(self, cells: Sequence[Cell]) -> None:
        """Refuse what cannot run: missing data before any model is fetched, then methods that do not fit."""
        for cell in {cell.dataset: cell for cell in reversed(cells)}.values():
            with suppress(*FAILS_ITS_CELLS):
                self.objects.open(cell, cell.each_shift()[:1])
            if not cell.data_options.get("allow_incomplete"):
                shifts = [shift for one in cells if one.dataset == cell.dataset for shift in one.each_shift()]
                require_one_origin(self.objects.dataset(cell), shifts)
        for cell in {(cell.method, cell.model, cell.dataset): cell for cell in cells}.values():
            check_compatible(self.objects.method(cell), self.objects.model(cell))
            with suppress(*FAILS_ITS_CELLS):
                self.objects.split(cell)

    def _cell(self, cell: Cell) -> Ended:
        one, problem = self._resolve(cell)
        manifest = make_manifest(one)
        kept = self.store.manifest(manifest.id)
        if kept is not None and kept.status == "complete" and self.retime is not None and problem is None:
            return self._remeasured(one, manifest, kept, self.retime)
        if kept is not None and kept.status in DONE and not self.force:
            self._told.cell_ended(cell.label, "reused", _other_versions(kept, manifest))
            return Ended(manifest.id, cell.label, "reused")
        start = 0
        if self.resume and cell.reset in RESTARTABLE and kept is not None and kept.status == "running":
            start = one.stream.border(self.store.rows_done(manifest.id))
        self._told.cell_started(cell.label, start, len(one.stream))
        before = replace(kept.outcome, init_ms=None) if start and kept is not None else Outcome()
        manifest = replace(manifest, started=_now(), outcome=before)
        if problem is not None:
            return self._failed(one, self.store.begin(manifest, resume=False), manifest, problem)
        return self._compute(one, manifest, start)

    def _resolve(self, cell: Cell) -> tuple[Resolved, BaseException | None]:
        """Return a cell with its objects, and why it cannot run if its method or its reader fails."""
        method, source = self.objects.method(cell), self.objects.model(cell)
        info, problem = _describe(method, source, self.objects.watch(source))
        try:
            stream, split = self.objects.stream(cell, source), self.objects.split(cell)
        except FAILS_ITS_CELLS as error:
            stream, split, problem = _unread(cell, source), None, error
        cautions = (*source.cautions, *self._single_images(cell, method, source, info))
        return (
            Resolved(cell, method, self.objects.dataset(cell), source, stream, split, info, cautions),
            problem,
        )

    def _single_images(
        self, cell: Cell, method: Method, source: SourceModel, info: MethodInfo
    ) -> tuple[str, ...]:
        """Return the caution that a batch of one image has no statistics to adapt BatchNorm layers to, if it applies.

        It is shown once per method and model.
        """
        layers = {layer.name for layer in source.layers if layer.kind == "batch"}
        touched = any(name.rpartition(".")[0] in layers for name in info.adapted_tensors)
        single = cell.batch_size == 1 and cell.reset != "image"
        touched = touched or "batchnorm" in method.card.needs
        if not single or not touched or is_baseline(method):
            return ()
        way_out = method.one_image or "take more images per step with batch_size=N"
        caution = (
            f"{cell.method} adapts the BatchNorm layers of {cell.model} at batch_size=1, and the statistics of one "
            f"image say little of its domain; {way_out}"
        )
        where = cell.method, cell.variant, cell.model
        if where not in self._warned:
            self._warned.add(where)
            warnings.warn(caution, Caution, stacklevel=2)
        return (caution,)

    def _compute(self, one: Resolved, manifest: Manifest, start: int) -> Ended:
        writer, kept = self.store.begin(manifest, resume=start > 0), Kept()
        self._heard.cautions.clear()  # those before this cell are of its model, which says them itself
        try:
            with pinned_memory(wanted=one.source.device.type == "cuda"):
                outcome = self._outcome(one, manifest, kept.writer(writer), kept, start)
        except KeyboardInterrupt:
            writer.close()
            raise
        except ANYTHING as error:  # the store's own errors end the run
            if kept.failure is error:
                raise
            return self._failed(one, writer, manifest, error)
        status: Status = "complete" if outcome.finite else "collapsed"
        return self._end(writer, replace(manifest, outcome=outcome, status=status))

    def _remeasured(self, one: Resolved, manifest: Manifest, kept: Manifest, retime: Retime) -> Ended:
        """Run a complete cell once more for its times and memory; its predictions stay and must come out the same."""
        cell, rows = one.cell, Collected()
        self._told.cell_started(cell.label, 0, len(one.stream))
        try:
            outcome = self._outcome(one, manifest, rows, Kept(), 0, noting=False)
        except KeyboardInterrupt:
            raise
        except ANYTHING as error:
            self._told.cell_ended(cell.label, "differs", brief(error))
            return Ended(kept.id, cell.label, "differs")
        outcome = replace(outcome, finite=kept.outcome.finite, peak_rss_mib=peak_rss_mib())
        now = replace(
            kept, machine=manifest.machine, clock=manifest.clock, outcome=outcome, remeasured=_now()
        )
        differing = retime(now, rows.batches)
        told = (
            f"{differing} of {len(one.stream)} predictions, so its times stay as they were"
            if differing
            else ""
        )
        status = "differs" if differing else "remeasured"
        self._told.cell_ended(cell.label, status, told)
        return Ended(kept.id, cell.label, status)

    def _outcome(
        self,
        one: Resolved,
        manifest: Manifest,
        writer: RowWriter,
        kept: Kept,
        start: int,
        noting: bool = True,
    ) -> Outcome:
        """Run the steps of a cell."""

        def noted(outcome: Outcome) -> None:
            if one.cell.reset in RESTARTABLE and noting:
                kept.call(self.store.note, replace(manifest, outcome=outcome))

        split = None if one.split is None else self._split(one, one.split)
        watch = self.objects.watch(one.source)
        task = _task(one, split)
        baselines = Baselines(one, manifest.protocol, self.store, kept)
        job = CellJob(
            method=one.method,
            source=one.source,
            stream=one.stream,
            reset=one.cell.reset,
            seed=one.cell.seed,
            task=task,
            split=split,
            scores=None if is_baseline(one.method) else baselines.source(),
            probe_memory=self.probe_memory,
            views=one.cell.views,
            scored=self.scored,
            watch=watch,
            initial_key=None if split is None else initial_key(manifest, task.stream_length),
            about=one.cell.label,
            features=self._features(one, manifest, None if noting else self._timed_again),
            zero_shot=baselines.zero_shot(),
            evidence=self._passes.evidence(one.cell),
            preparing=None if split is None else self._preparing(one, len(split)),
        )
        load = LoadWatch(one.source.device)
        outcome = CellRunner(job, writer, self._told.advanced, noted, manifest.outcome).run(start)
        watch.check_bytes(type(one.method).__name__)
        return replace(outcome, load=load.taken())

    def _features(
        self, one: Resolved, manifest: Manifest, timed_again: set[Path] | None
    ) -> StreamFeatures | None:
        """Return the features of the stream where the method works on nothing else."""
        if one.method.card.inputs != "features":
            return None
        encoder = Encoder(one.source, one.info.view_policy, one.cell.seed, one.cell.views)
        return stream_features(
            one.stream, encoder, manifest, probe=self.probe_memory, timed_again=timed_again
        )

    def _split(self, one: Resolved, images: ImageSource) -> SplitBatches:
        decoded = self.objects.decoded(images, one.source.preprocess)
        return SplitBatches(images, one.source, one.cell.seed, decoded)

    def _preparing(self, one: Resolved, available: int) -> Callable[[int], None]:
        """Return what is told how many source images the preparation of a method was handed."""
        total = one.method.init_reads(available)
        if not isinstance(total, int | None):
            raise PluginError(
                f"{type(one.method).__name__}.init_reads must return a number or None, got {type(total).__name__}"
            )
        return lambda done: self._told.preparing(one.cell.method, done, total)

    def _failed(self, one: Resolved, writer: RowWriter, manifest: Manifest, error: BaseException) -> Ended:
        if not self.objects.watch(one.source).sound:
            self.objects.forget(one.source)
        text = traceback_text(error)
        return self._end(writer, replace(manifest, status="failed", error=text), brief(error))

    def _end(self, writer: RowWriter, manifest: Manifest, detail: str = "") -> Ended:
        outcome = replace(manifest.outcome, peak_rss_mib=peak_rss_mib())
        manifest = replace(_with(manifest, self._heard), finished=_now(), outcome=outcome)
        self._heard.warnings.clear()
        self.store.finish(writer, manifest)
        self._told.cell_ended(manifest.cell.label, manifest.status, detail)
        return Ended(manifest.id, manifest.cell.label, manifest.status)


def _describe(method: Method, source: SourceModel, watch: Watch) -> tuple[MethodInfo, BaseException | None]:
    """Return what a method says of itself, or nothing and why."""
    try:
        with settings_kept():
            info = describe_method(method, source)
        watch.check(type(method).__name__)
        return info, None
    except KeyboardInterrupt:
        raise
    except ANYTHING as error:  # whatever a method raises fails its own cell
        return MethodInfo(), error


def _unread(cell: Cell, source: SourceModel) -> Stream:
    """Return the stream of a cell whose reader failed: no image of any shift."""
    parts = [Part(shift, Unread(), np.empty(0, dtype=np.int64)) for shift in cell.each_shift()]
    return Stream(parts, cell.batch_size, source.preprocess)


def _with(manifest: Manifest, heard: Heard) -> Manifest:
    """Return the manifest of a cell with what was warned of while it ran."""
    cautions = tuple(dict.fromkeys([*manifest.notes.cautions, *heard.cautions]))
    return replace(manifest, warnings=tuple(heard.warnings), notes=replace(manifest.notes, cautions=cautions))


def _other_versions(kept: Manifest, now: Manifest) -> str:
    """Return which libraries a kept cell was computed with, where they were others; empty where they are the same."""
    other = [
        f"{name} {kept.versions.get(name, 'none')} (now {now.versions.get(name, 'none')})"
        for name in COMPARED
        if kept.versions.get(name) != now.versions.get(name)
    ]
    return f"with {', '.join(other)}; use force to compute it again" if other else ""


def _task(one: Resolved, split: SplitBatches | None) -> Task:
    wants_length = "stream_length" in one.method.card.needs
    return Task(
        num_classes=one.source.num_classes,
        class_names=one.source.class_names,
        batch_size=one.cell.batch_size,
        stream_length=len(one.stream) if wants_length else None,
        source=split,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
