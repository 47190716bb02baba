# SPDX-License-Identifier: Apache-2.0
"""Facts about a cell besides its numbers: its method's description, its task, warnings, other versions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tta_bench.checks.guard import settings_kept
from tta_bench.data.images.checked import Unread
from tta_bench.data.stream import Part, Stream
from tta_bench.engine.hearing import Heard
from tta_bench.engine.identity import MethodInfo, Resolved, describe_method, is_baseline
from tta_bench.engine.split import SplitBatches
from tta_bench.engine.watch import Watch
from tta_bench.method import Method, Task
from tta_bench.models.source import SourceModel
from tta_bench.registry import ANYTHING
from tta_bench.spec import Cell, Manifest

COMPARED = ("torch", "timm", "open_clip_torch", "torchvision")
"""Libraries whose versions may change numbers."""


def described(method: Method, source: SourceModel, watch: Watch) -> tuple[MethodInfo, BaseException | None]:
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


def single_images(cell: Cell, method: Method, source: SourceModel, info: MethodInfo) -> str:
    """Return the caution that a batch of one image has no statistics to adapt BatchNorm layers to; empty: it has."""
    layers = {layer.name for layer in source.layers if layer.kind == "batch"}
    touched = any(name.rpartition(".")[0] in layers for name in info.adapted_tensors)
    single = cell.batch_size == 1 and cell.reset != "image"
    touched = touched or "batchnorm" in method.card.needs
    if not single or not touched or is_baseline(method):
        return ""
    way_out = method.one_image or "take more images per step with batch_size=N"
    return (
        f"{cell.method} adapts the BatchNorm layers of {cell.model} at batch_size=1, and the statistics of one "
        f"image say little of its domain; {way_out}"
    )


def unread(cell: Cell, source: SourceModel) -> Stream:
    """Return the stream of a cell whose reader failed: no image of any shift."""
    parts = [Part(shift, Unread(), np.empty(0, dtype=np.int64)) for shift in cell.each_shift()]
    return Stream(parts, cell.batch_size, source.preprocess)


def with_warnings(manifest: Manifest, heard: Heard) -> Manifest:
    """Return the manifest of a cell with what was warned of while it ran."""
    cautions = tuple(dict.fromkeys([*manifest.notes.cautions, *heard.cautions]))
    return replace(manifest, warnings=tuple(heard.warnings), notes=replace(manifest.notes, cautions=cautions))


def other_versions(kept: Manifest, now: Manifest) -> str:
    """Return which libraries a kept cell was computed with, where they were others; empty where they are the same."""
    other = [
        f"{name} {kept.versions.get(name, 'none')} (now {now.versions.get(name, 'none')})"
        for name in COMPARED
        if kept.versions.get(name) != now.versions.get(name)
    ]
    return f"with {', '.join(other)}; use force to compute it again" if other else ""


def task_of(one: Resolved, split: SplitBatches | None) -> Task:
    """Return what the method of a cell may know of its stream."""
    wants_length = "stream_length" in one.method.card.needs
    return Task(
        num_classes=one.source.num_classes,
        class_names=one.source.class_names,
        batch_size=one.cell.batch_size,
        stream_length=len(one.stream) if wants_length else None,
        source=split,
    )
