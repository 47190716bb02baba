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

import torch

from tta_bench.data.images.prefetch import pinned_memory
from tta_bench.data.images.source import ImageSource
from tta_bench.data.layouts.opening import require_one_origin
from tta_bench.engine.baselines import Baselines
from tta_bench.engine.cell import CellJob, CellRunner, Scored
from tta_bench.engine.devices import chosen
from tta_bench.engine.encoding import Encoder
from tta_bench.engine.facts import described, other_versions, single_images, task_of, unread, with_warnings
from tta_bench.engine.features import StreamFeatures, stream_features
from tta_bench.engine.globals import threads_set, torch_settings
from tta_bench.engine.guests import Kept, QuietReporter, decoder_died, traceback_text
from tta_bench.engine.hearing import Heard, warnings_heard
from tta_bench.engine.identity import (
    MethodInfo,
    Resolved,
    is_baseline,
    make_manifest,
)
from tta_bench.engine.initial import initial_key
from tta_bench.engine.load import LoadWatch
from tta_bench.engine.meter import peak_rss_mib
from tta_bench.engine.objects import Objects
from tta_bench.engine.passes import Passes
from tta_bench.engine.ports import RecordStore, Reporter, Retime, RowWriter
from tta_bench.engine.resume import Start, start_of
from tta_bench.engine.rows import Collected
from tta_bench.engine.split import SplitBatches
from tta_bench.errors import Caution, PluginError
from tta_bench.method import Method
from tta_bench.models.source import SourceModel
from tta_bench.registry import ANYTHING, brief
from tta_bench.spec import Cell, Manifest, Outcome, counter_seed
from tta_bench.spec.manifest import Status
from tta_bench.steps import check_compatible

DONE = ("complete", "collapsed")
LOADERS = 3
"""Most attempts to load the images of a cell where a process that decodes them dies."""
FAILS_ITS_CELLS = (PluginError,)
"""Exceptions of a bad reader of images; the cells of other datasets run."""


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
        threads: Threads that torch computes with; None: as in this process.
        shard: Which range of how many is computed of each cell; None: the whole of it.
        scored: Called with every batch and its scores, for what records do not hold.
    """

    store: RecordStore
    reporter: Reporter
    objects: Objects = field(default_factory=Objects)
    resume: bool = False
    force: bool = False
    retime: Retime | None = None
    probe_memory: bool = True
    threads: int | None = None
    shard: tuple[int, int] | None = None
    scored: Scored | None = None

    def __post_init__(self) -> None:
        """Let a reporter that fails fall silent."""
        self._told, self._warned = QuietReporter(self.reporter), set[tuple[str, str, str]]()
        self._heard = Heard()
        self._passes, self._timed_again = Passes(self.objects, ()), set[Path]()
        self._scored_by = self.store  # of a shard too, the whole run's store keeps the source scores

    def run(self, cells: Sequence[Cell], *, checked: bool = False) -> list[Ended]:
        """Run the cells in order and return how each ended; torch's global settings are as before afterwards.

        Args:
            cells: The cells.
            checked: Whether `check` was called for them.

        Raises:
            TTABenchError: Before anything is computed, if a method, a model and a dataset do not fit.
        """
        with torch_settings(), threads_set(self.threads):
            if not checked:
                with warnings_heard(self._heard):
                    self._check(cells)
                self.store.plan(cells)
            self._passes = Passes(self.objects, cells)
            return [self._alone(cell) for cell in cells]

    def check(self, cells: Sequence[Cell]) -> None:
        """Refuse cells that cannot run here, and compute nothing.

        Raises:
            TTABenchError: For the first.
        """
        with torch_settings(), threads_set(self.threads), warnings_heard(self._heard):
            self._check(cells)

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
            self._told.cell_ended(cell.label, "reused", other_versions(kept, manifest))
            return Ended(manifest.id, cell.label, "reused")
        if self.shard is None:
            return self._begin(one, manifest, kept, range(len(one.stream)), problem)
        rows = one.stream.shard(*self.shard)
        if not rows:  # there are fewer batches than shards
            return Ended(manifest.id, cell.label, "complete")
        part = self._part(manifest.id)
        kept = part.store.manifest(manifest.id)
        if kept is not None and kept.status in DONE and not self.force:
            return Ended(manifest.id, cell.label, "reused")
        return part._begin(one, manifest, kept, rows, problem)

    def _part(self, cell: str) -> Session:
        """Return the session that keeps its rows where those of a shard are kept."""
        assert self.shard is not None
        part = replace(self, store=self.store.shard(cell, *self.shard), shard=None)
        part._scored_by, part._passes = self.store, self._passes
        return part

    def _begin(
        self,
        one: Resolved,
        manifest: Manifest,
        kept: Manifest | None,
        rows: range,
        problem: BaseException | None,
    ) -> Ended:
        """Compute a range of a cell, from its start or from where an interruption left it."""
        for tried in range(LOADERS):
            ended = self._attempt(one, manifest, kept, rows, problem, tried)
            if ended is not None:
                return ended
            kept = self.store.manifest(manifest.id)
        raise AssertionError

    def _attempt(
        self,
        one: Resolved,
        manifest: Manifest,
        kept: Manifest | None,
        rows: range,
        problem: BaseException | None,
        tried: int,
    ) -> Ended | None:
        """Compute a range of a cell; None if a process that decodes images died and another is to be tried."""
        start = Start(rows)
        if (self.resume or tried) and kept is not None and kept.status not in DONE:
            start = start_of(one, self.store, manifest.id, rows)
        self._told.cell_started(one.cell.label, start.done, len(rows))
        before = replace(kept.outcome, init_ms=None) if start.done and kept is not None else Outcome()
        manifest = replace(manifest, started=_now(), outcome=before)
        if problem is not None:
            writer = self.store.begin(manifest, rows=0, first=rows.start)
            return self._failed(one, writer, manifest, problem)
        return self._compute(one, manifest, start, tried == LOADERS - 1)

    def _resolve(self, cell: Cell) -> tuple[Resolved, BaseException | None]:
        """Return a cell with its objects, and why it cannot run if its method or its reader fails."""
        method, source = self.objects.method(cell), self.objects.model(cell)
        info, problem = described(method, source, self.objects.watch(source))
        try:
            stream, split = self.objects.stream(cell, source), self.objects.split(cell)
        except FAILS_ITS_CELLS as error:
            stream, split, problem = unread(cell, source), None, error
        cautions = (*source.cautions, *self._single_images(cell, method, source, info))
        return (
            Resolved(cell, method, self.objects.dataset(cell), source, stream, split, info, cautions),
            problem,
        )

    def _single_images(
        self, cell: Cell, method: Method, source: SourceModel, info: MethodInfo
    ) -> tuple[str, ...]:
        """Return the caution of single images, if it applies; it is shown once per method and model."""
        caution, where = single_images(cell, method, source, info), (cell.method, cell.variant, cell.model)
        if caution and where not in self._warned:
            self._warned.add(where)
            warnings.warn(caution, Caution, stacklevel=2)
        return (caution,) if caution else ()

    def _compute(self, one: Resolved, manifest: Manifest, start: Start, last: bool) -> Ended | None:
        writer = self.store.begin(manifest, rows=start.done, first=start.rows.start)
        kept = Kept()
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
            if decoder_died(error) and not last:
                writer.close()
                return None
            return self._failed(one, writer, manifest, error)
        status: Status = "complete" if outcome.finite else "collapsed"
        return self._end(writer, replace(manifest, outcome=outcome, status=status))

    def _remeasured(self, one: Resolved, manifest: Manifest, kept: Manifest, retime: Retime) -> Ended:
        """Run a complete cell once more for its times and memory; its predictions stay and must come out the same."""
        cell, rows = one.cell, Collected()
        self._told.cell_started(cell.label, 0, len(one.stream))
        try:
            outcome = self._outcome(one, manifest, rows, Kept(), Start(range(len(one.stream))), noting=False)
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
        told = f"{differing} of {len(one.stream)} predictions are not as recorded" if differing else ""
        status = "differs" if differing else "remeasured"
        self._told.cell_ended(cell.label, status, told)
        return Ended(kept.id, cell.label, status)

    def _outcome(
        self,
        one: Resolved,
        manifest: Manifest,
        writer: RowWriter,
        kept: Kept,
        start: Start,
        noting: bool = True,
    ) -> Outcome:
        """Run the steps of a cell."""

        def noted(outcome: Outcome) -> None:
            if noting:
                kept.call(self.store.note, replace(manifest, outcome=outcome))

        split = None if one.split is None else self._split(one, one.split)
        watch = self.objects.watch(one.source)
        task = task_of(one, split)
        baselines = Baselines(one, manifest.protocol, self._scored_by, kept)
        encoder = Encoder(one.source, one.info.view_policy, one.cell.seed, one.cell.views)
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
            features=self._features(one, manifest, encoder, None if noting else self._timed_again),
            zero_shot=baselines.zero_shot(),
            evidence=self._passes.evidence(one.cell),
            preparing=None if split is None else self._preparing(one, len(split)),
        )
        load = LoadWatch(one.source.device)
        runner = CellRunner(job, writer, self._told.advanced, noted, manifest.outcome)
        outcome = runner.run(start.position, start.rows.stop, start.state)
        watch.check_bytes(type(one.method).__name__)
        if encoder.parts.times:
            times = outcome.out_of_memory + encoder.parts.times
            outcome = replace(outcome, out_of_memory=times, views_at_once=encoder.parts.at_once)
        return replace(outcome, load=load.taken())

    def _features(
        self, one: Resolved, manifest: Manifest, encoder: Encoder, timed_again: set[Path] | None
    ) -> StreamFeatures | None:
        """Return the features of the stream where the method works on nothing else."""
        if one.method.card.inputs != "features":
            return None
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
        manifest = replace(with_warnings(manifest, self._heard), finished=_now(), outcome=outcome)
        self._heard.warnings.clear()
        self.store.finish(writer, manifest)
        self._told.cell_ended(manifest.cell.label, manifest.status, detail)
        return Ended(manifest.id, manifest.cell.label, manifest.status)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
