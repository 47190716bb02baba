# SPDX-License-Identifier: Apache-2.0
"""Run one cell: the loop that owns state, resets, draws and clocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils import _pytree as pytree

from tta_bench.checks.guard import settings_kept
from tta_bench.data.stream import Batch, Stream
from tta_bench.engine.devices import MIB, device_peak, tells_peaks
from tta_bench.engine.encoding import seeded_views
from tta_bench.engine.feature_files import Charged
from tta_bench.engine.features import StreamFeatures
from tta_bench.engine.groups import grouping_pays, groups, images_at_once
from tta_bench.engine.initial import Initial, keep_initial, read_initial
from tta_bench.engine.inputs import charges, encoded, in_feature_space, to_device
from tta_bench.engine.meter import Meter, cpu_peak
from tta_bench.engine.passes import Evidence, Seen
from tta_bench.engine.ports import RowWriter, SourceScores
from tta_bench.engine.rows import clock_columns, score_columns
from tta_bench.engine.shrink import free_memory, halved
from tta_bench.engine.split import SplitBatches
from tta_bench.engine.states import dump_state, state_bytes
from tta_bench.engine.watch import Watch
from tta_bench.method import Inputs, Method, ScoringMethod, State, Task
from tta_bench.models.source import SourceModel
from tta_bench.spec import Outcome, counter_seed
from tta_bench.steps import Stepped, Way, joined, shaped, step, way_of

NOTHING_NOTED = Outcome()
Scored = Callable[[Batch, torch.Tensor], None]
AFRESH = ("image", "batch")
"""Reset rules under which every batch starts from the initial state, so that a run may begin at any of them."""


@dataclass(frozen=True)
class CellJob:
    """One cell, ready to run.

    Attributes:
        method: The method.
        source: Its source model.
        stream: What it sees.
        reset: When it forgets.
        seed: Of its draws.
        task: What its `init` may know.
        zero_shot: Zero-shot scores with the method's own class prompts, where they differ from the source model's.
        scores: What the source model alone says of the stream; None for the source method itself.
        split: The source images, where the method asks for them.
        probe_memory: Whether steps are repeated under the profiler to measure memory on the CPU.
        views: Recipe by which views are made; see `make_views`.
        scored: Called with the scores (N, K) of every batch.
        watch: Checks after each step that the source model was not written to.
        preparing: Called with how many source images `init` was handed so far.
        initial_key: Under which the initial state is kept, where it depends on source data.
        about: What the initial state is of, for people.
        features: Features of the stream for a method in feature space, which then sees no images.
        evidence: What the steps of a pass saw that several cells share.
    """

    method: Method
    source: SourceModel
    stream: Stream
    reset: str
    seed: int
    task: Task
    scores: SourceScores | None
    split: SplitBatches | None = None
    probe_memory: bool = True
    views: str = "device"
    scored: Scored | None = None
    watch: Watch | None = None
    initial_key: str | None = None
    about: str = ""
    zero_shot: SourceScores | None = None
    features: StreamFeatures | None = None
    evidence: Evidence | None = None
    preparing: Callable[[int], None] | None = None


class Step(NamedTuple):
    """One batch under way.

    Attributes:
        batch: Its images.
        turn: Its place in this run, from 0; a resumed run counts from 0 again, as its clocks warm up again.
        reset: Whether it starts from the initial state.
        last: Whether it is the last of this run.
    """

    batch: Batch
    turn: int
    reset: bool
    last: bool


class CellRunner:
    """The state of one cell under way.

    Args:
        job: What to run.
        writer: Where rows go.
        advanced: Called with the number of images after each step.
        noted: Called with the outcome so far whenever it changes.
        before: The outcome noted before an interruption.
    """

    def __init__(
        self,
        job: CellJob,
        writer: RowWriter,
        advanced: Callable[[int], None],
        noted: Callable[[Outcome], None] = lambda outcome: None,
        before: Outcome = NOTHING_NOTED,
    ) -> None:
        self.job, self.writer, self.advanced, self.noted = job, writer, advanced, noted
        self.meter = Meter(job.source.device)
        self.way: Way = way_of(job.method, per_image=job.reset == "image")
        self.outcome = before
        shrunk = before.out_of_memory > 0  # as before the interruption, so that no bit differs
        self.at_once = before.images_at_once if shrunk else None
        self.charged: tuple[int, Charged] | None = None
        """Where the batch under way begins, and its features, in feature space."""
        self.labels = job.stream.labels()

    def run(self, start: int = 0, stop: int | None = None, state: State | None = None) -> Outcome:
        """Run over a range of the stream whose ends are where batches begin.

        Args:
            start: First position; without a state it must be 0, unless every batch starts afresh.
            stop: Position behind the last; None: to the end.
            state: The state that the rows before ``start`` led to, where it is carried.
        """
        job, began, online = self.job, time.perf_counter(), self.job.reset not in AFRESH
        kept = None if job.initial_key is None else read_initial(job.initial_key, job.source.device)
        initial, init_ms = self._init() if kept is None else kept
        fresh, computed, last = state is None, 0, len(job.stream) if stop is None else stop
        shared = job.evidence is not None and job.evidence.known  # then no step moves the state
        for turn, batch in enumerate(job.stream.from_row(start, stop, images=job.features is None)):
            reset = (turn == 0 and fresh) or not online or (job.reset == "shift" and batch.first)
            state = self._one(initial if reset else state, Step(batch, turn, reset, batch.rows.stop == last))
            if online and not shared:
                self.writer.keep_state(partial(dump_state, state))
            computed += len(batch.rows)
            self.advanced(len(batch.rows))
        if job.evidence is not None and not job.evidence.known:
            job.evidence.over(whole=start == 0 and last == len(job.stream))
        return replace(
            self.outcome,
            init_ms=init_ms,
            init_reused=kept is not None,
            seconds=time.perf_counter() - began,
            computed=computed,
            state_mib=state_bytes(state) / MIB if online and not shared else None,
        )

    def _init(self) -> Initial:
        """Compute the initial state, and keep it where it depends on source data."""
        job = self.job
        heard = nullcontext() if job.split is None else job.split.heard(job.preparing)
        with settings_kept(), heard, self.meter.phase("init"):
            state = job.method.init(job.source, job.task)
        self._check_source()
        loading = job.split.seconds if job.split else 0.0
        made = Initial(state, 1e3 * (self.meter.take()["init"] - loading))
        if job.initial_key is not None:
            keep_initial(job.initial_key, made, job.about)
        return made

    def _one(self, state: State, now: Step) -> State:
        job, batch, before = self.job, now.batch, self.outcome
        if job.features is not None:
            self.charged = batch.rows.start, job.features.rows(batch.rows)
        taken = self._in_groups(state, now)
        while taken is None:  # the device ran out of memory
            free_memory(job.source.device)
            taken = self._in_groups(state, now)
        parts, peaks = taken
        seconds, stepped = self.meter.take(), joined(parts)
        self._check_source()
        warmup = now.turn == 0 and job.stream.batches > 1
        peak = max((one for one in peaks if one is not None), default=None)
        if peak is not None and job.features is not None:
            peak = max(peak, job.features.peak_mib(batch.rows.start))
        peak = self._known_peak(batch.rows.start, peak)
        if job.scored is not None:
            job.scored(batch, stepped.scores)
        finite = self.outcome.finite and bool(torch.isfinite(stepped.scores).all())
        self.outcome = replace(self.outcome, finite=finite)
        columns = self._columns(stepped, batch, seconds)
        if self.charged is not None:
            columns |= charges(self.charged[1])
        if self.outcome != before:
            self.noted(self.outcome)
        self.writer.append(columns | {"warmup": warmup, "reset": now.reset, "peak_mib": peak})
        return stepped.state

    def _known_peak(self, row: int, peak: float | None) -> float | None:
        """Return the peak of a step, or of the shared one that a cell only scored."""
        kept = self.job.evidence
        if kept is None:
            return peak
        if not kept.known:
            kept.peaks[row] = peak
        return kept.peaks.get(row)

    def _in_groups(self, state: State, now: Step) -> tuple[list[Stepped], list[float | None]] | None:
        """Take a step group by group, with their peak memory; None where it is to be tried with smaller groups."""
        batch = now.batch
        split = list(groups(batch, self._at_once(state, now)))
        peaks = [self._probe(state, split[0], now)]
        self.meter.take()
        parts = []
        try:
            for group in split:
                stepped, peak = self._watched(state, self._inputs(group, batch.number), group)
                parts.append(stepped)
                peaks.append(peak)
        except torch.OutOfMemoryError:
            if not self._shrink(len(split[0].rows)):
                raise
            return None
        return parts, peaks

    def _shrink(self, images: int) -> bool:
        """Halve the episodes that are taken at once; the batch that a step adapts to is the protocol's, and stays."""
        if self.job.reset != "image" or images == 1:
            return False
        self.at_once, times = halved(images), self.outcome.out_of_memory + 1
        self.outcome = replace(self.outcome, out_of_memory=times, images_at_once=self.at_once)
        return True

    def _check_source(self) -> None:
        if self.job.watch is not None:
            self.job.watch.check(type(self.job.method).__name__)

    def _at_once(self, state: State, now: Step) -> int:
        """Return how many images of a batch are adapted at once, which is found at the first one."""
        if self.job.reset != "image":
            return len(now.batch.rows)
        if self.at_once is None:
            (one, *_), most = groups(now.batch, 1), self.job.stream.batch_size
            inputs = self._inputs(one, now.batch.number)
            work = (lambda: self._step(state, inputs, one)) if self.way == "vmap" else None
            if work is not None and not grouping_pays(self.job.source, state, work):
                most, work = 1, None
            self.at_once = images_at_once(most, self.job.source.device, inputs.draws, work)
            self.outcome = replace(self.outcome, images_at_once=self.at_once)
        return self.at_once

    def _watched(self, state: State, inputs: Inputs, batch: Batch) -> tuple[Stepped, float | None]:
        """Take a step, and where the device's allocator tells it, read its peak memory."""
        device = self.job.source.device
        if not tells_peaks(device):
            return self._step(state, inputs, batch), None
        done: list[Stepped] = []
        peak, absolute = device_peak(lambda: done.append(self._step(state, inputs, batch)), device)
        highest = max(absolute, self.outcome.absolute_peak_mib or 0.0)
        self.outcome = replace(self.outcome, absolute_peak_mib=highest)
        return done[0], peak

    def _step(self, state: State, inputs: Inputs, batch: Batch) -> Stepped:
        """Take a step, and put back what it changed in the process."""
        with settings_kept():
            return self._bare_step(state, inputs, batch)

    def _bare_step(self, state: State, inputs: Inputs, batch: Batch) -> Stepped:
        """Make views and encode where the card asks for it, then adapt and predict; all is the method's cost."""
        job, policy = self.job, self.job.method.view_policy()
        if job.evidence is not None:
            return self._scored(state, inputs, batch, job.evidence)
        if job.features is not None:
            return step(job.method, job.source, state, inputs, way=self.way, phase=self.meter.phase)
        if policy is not None:
            assert inputs.images is not None
            with self.meter.phase("view"):
                views = seeded_views(inputs.images, batch.ids, policy, job.seed, job.views)
            inputs = inputs._replace(views=views)
        if "features" in job.method.card.needs:
            with self.meter.phase("encode"), torch.no_grad():
                inputs = encoded(job.source, inputs)
        return step(job.method, job.source, state, inputs, way=self.way, phase=self.meter.phase)

    def _scored(self, state: State, inputs: Inputs, batch: Batch, kept: Evidence) -> Stepped:
        """Take a step that several cells share, or score what it saw; the time of the whole is charged."""
        job, row = self.job, batch.rows.start
        assert isinstance(job.method, ScoringMethod)
        after = state
        if kept.known:
            seen = kept.at(row)
            self.meter.charge("adapt", seen.seconds)
        else:
            before = self.meter.so_far("adapt")
            with self.meter.phase("adapt"), torch.no_grad():
                after, evidence = job.method.observe(job.source, state, inputs)
            seen = Seen(evidence, self.meter.so_far("adapt") - before)
            kept.put(row, seen)
        with self.meter.phase("adapt"), torch.no_grad():
            scores = shaped(job.method, job.source, job.method.score(job.source, seen.evidence), inputs)
        return Stepped(after if self.way == "batch" else state, scores.detach(), None, True)

    def _probe(self, state: State, group: Batch, now: Step) -> float | None:
        """Repeat a step under the profiler: the first after warm-up and the last, on the CPU only."""
        wanted = self.job.probe_memory and (now.turn == 1 or now.last)
        if self.job.evidence is not None and self.job.evidence.known:
            return None
        if not wanted or self.job.source.device.type != "cpu":
            return None
        inputs = self._inputs(group, now.batch.number)
        return cpu_peak(lambda: self._step(state, inputs, group))

    def _inputs(self, batch: Batch, number: int) -> Inputs:
        """Return what a step sees of a batch or of a group of it; ``number`` is that of the whole batch."""
        job, source = self.job, self.job.source
        if self.charged is not None:
            start, charged = self.charged
            found = charged.features[batch.rows.start - start : batch.rows.stop - start]
            return in_feature_space(found, job.method, self._draws(batch))
        images = batch.images.to(source.device, non_blocking=True).to(source.dtype) / 255
        inputs = Inputs(images=images, draws=self._draws(batch))
        if "source_replay" not in job.method.card.needs:
            return inputs
        assert job.split is not None
        replay, labels = job.split.batch(number, job.task.batch_size)
        wanted = "source_labels" in job.method.card.needs
        return inputs._replace(source_images=replay, source_labels=labels if wanted else None)

    def _draws(self, batch: Batch) -> Any:
        """Draw per image id where every image is an episode of its own, else once for the step."""
        method, source, seed = self.job.method, self.job.source, self.job.seed
        if type(method).draw is Method.draw:  # nothing to draw, and no generators to seed for it
            return None
        device = source.device if method.card.draw_device == "device" else torch.device("cpu")

        def draw(count: int, *key: object) -> Any:
            generator = torch.Generator(device).manual_seed(counter_seed("draw", seed, *key))
            return method.draw(source, count, generator)

        if self.job.reset != "image":
            return to_device(draw(len(batch.rows), "step", batch.rows.start), source.device)
        each = [draw(1, "image", image_id) for image_id in batch.ids]
        if all(one is None for one in each):
            return None
        return to_device(pytree.tree_map(lambda *leaves: torch.cat(leaves), *each), source.device)

    def _columns(self, stepped: Stepped, batch: Batch, seconds: dict[str, float]) -> dict[str, Any]:
        rows, count = slice(batch.rows.start, batch.rows.stop), len(batch.rows)
        own = score_columns(stepped.scores, self.job.method.card.output)
        kept = self.job.scores
        columns = {
            "image_id": list(batch.ids),
            "shift": [str(shift) for shift in batch.shifts],
            "position": np.arange(rows.start, rows.stop, dtype=np.int32),
            "label": self.labels[rows].astype(np.int32),
            **own,
            "source_prediction": own["prediction"]
            if kept is None
            else kept.prediction[rows].astype(np.int32),
            "source_confidence": own["confidence"] if kept is None else kept.confidence[rows],
            **clock_columns(seconds, count),
            "batch_size": count,
            "seed": self.job.seed,
        }
        if self.job.zero_shot is not None:
            columns["zero_shot_prediction"] = self.job.zero_shot.prediction[rows].astype(np.int32)
        if stepped.teacher is not None:
            teacher = score_columns(stepped.teacher, "logits")
            columns |= {f"teacher_{key}": teacher[key] for key in ("prediction", "confidence")}
        return columns
