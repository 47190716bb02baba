# SPDX-License-Identifier: Apache-2.0
"""The protocol card and the manifest of a cell, from its names and the objects behind them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tta_bench.data.dataset import Dataset
from tta_bench.data.images import views
from tta_bench.data.images.source import ImageSource
from tta_bench.data.stream import Part, Stream
from tta_bench.engine.machine import describe_machine, revision, versions
from tta_bench.engine.split import source_data
from tta_bench.errors import PluginError
from tta_bench.method import Method, ViewPolicy
from tta_bench.models.source import SourceModel
from tta_bench.prompts import sentences_hash
from tta_bench.spec import Cell, Manifest, Notes, Protocol, digest
from tta_bench.spec.cell import ID_LENGTH
from tta_bench.spec.manifest import Clock
from tta_bench.spec.protocol import ORIGINS

UNKNOWN_ORDER = "the first of the reader"
"""The arrangement of the first images where a reader does not state it."""
TIMER = "time.perf_counter, synchronised with the device at both ends"


class MethodInfo(NamedTuple):
    """A method's description of itself on one source model.

    Attributes:
        view_policy: How views are made for it.
        adapted_tensors: Names of the tensors that it changes.
        notes: Its own notes for the manifest.
        sentences: Those that it encodes besides the source model's.
    """

    view_policy: ViewPolicy | None = None
    adapted_tensors: tuple[str, ...] = ()
    notes: Mapping[str, Any] = {}
    sentences: tuple[str, ...] = ()


def describe_method(method: Method, source: SourceModel) -> MethodInfo:
    """Ask a method what the manifest says of it.

    Raises:
        PluginError: If it says what no manifest can hold.
    """
    name, policy, notes = type(method).__name__, method.view_policy(), method.notes(source)
    if not isinstance(policy, ViewPolicy | None):
        raise PluginError(f"{name}.view_policy must return a ViewPolicy or None, got {type(policy).__name__}")
    try:
        notes = json.loads(json.dumps(dict(notes)))
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"{name}.notes must return a dict of texts ({error}); turn its values into text"
        ) from error
    return MethodInfo(
        policy, tuple(map(str, method.adapted_tensors(source))), notes, tuple(method.sentences(source))
    )


def is_baseline(method: Method) -> bool:
    """Return whether a method's own predictions are the source scores: its card says that it is idle like this.

    A card that a class inherits is the promise of another class.
    """
    idle = method.card.idle if "card" in vars(type(method)) else None
    return idle is not None and all(getattr(method, name, None) == value for name, value in idle)


class Resolved(NamedTuple):
    """A cell with the objects that its names stand for.

    Attributes:
        cell: The cell.
        method: Its method.
        dataset: Its dataset.
        source: Its source model.
        stream: What the method sees.
        split: The source images, where the method asks for them.
        info: What the method says of itself.
        cautions: What to know before its numbers are trusted.
    """

    cell: Cell
    method: Method
    dataset: Dataset
    source: SourceModel
    stream: Stream
    split: ImageSource | None = None
    info: MethodInfo = MethodInfo()
    cautions: tuple[str, ...] = ()


def protocol_card(one: Resolved) -> Protocol:
    """Return the protocol card of a cell: what its names turned out to hold."""
    cell, source, stream = one.cell, one.source, one.stream
    policy, used = one.info.view_policy, source_data(one.method)
    return Protocol(
        class_list=digest(source.class_names, 16),
        label_mask=one.dataset.class_indices or None,
        precision=cell.precision,
        device=source.device.type,
        scenario=cell.scenario,
        severity=tuple(sorted({shift.severity for shift in cell.each_shift() if shift.severity})),
        subset=cell.subset,
        images_used=len(stream),
        images_available=sum(len(part.images) for part in stream.parts),
        data_hash=digest([part.images.data_hash for part in stream.parts], 16),
        data_seed=cell.data_seed,
        origin=ORIGINS.join(dict.fromkeys(_origin(part.images) for part in stream.parts)),
        order_hash=stream.order_hash(),
        model=cell.model_name,
        weights="+".join(one.weights_sha256 for one in (source, source.reward) if one is not None),
        preprocessing=source.preprocess.describe(),
        normalisation=normalisation(source),
        reset=cell.reset,
        batch_size=cell.batch_size,
        prompts=encoded_prompts(one),
        views="" if policy is None else made_views(policy, cell.views),
        source_data=", ".join(used) if used else "none",
        source_split="" if one.split is None else one.split.data_hash,
        hyperparameters_chosen=cell.chosen,
        seed=cell.seed,
        arrangement=_arrangement(cell.subset, [part.images for part in stream.parts]),
    )


def made_views(policy: ViewPolicy, recipe: str) -> str:
    """Return how views are made: kind, count, and the version of the code or that it is the published recipe."""
    by = f"version {views.VERSION}" if recipe == "device" else "by the published recipe"
    return f"{policy.kind} {policy.count} {by}"


def encoded_prompts(one: Resolved) -> str:
    """Return the hash of every sentence that is encoded; empty without a text side.

    They are those that the source model is bound to, which student, teacher and baseline share, and then those that
    the method adds.
    """
    text = one.source.text
    return sentences_hash((*text.sentences, *one.info.sentences)) if text else ""


def _prompt_set(prompts: str) -> str:
    """Return what tables call prompt templates: a name, that of a file, or the templates themselves."""
    return prompts if "{" in prompts else Path(prompts).name


def _origin(images: ImageSource) -> str:
    return str(getattr(images, "origin", "as distributed"))


def _arrangement(subset: str, sources: Sequence[ImageSource]) -> str:
    """Return what the first N images of a stream's readers are, empty for subsets that no order decides."""
    if not subset.startswith("first-"):
        return ""
    return ORIGINS.join(dict.fromkeys(str(getattr(one, "arrangement", UNKNOWN_ORDER)) for one in sources))


def normalisation(source: SourceModel) -> str:
    """Return the mean and deviation per channel inside a model, to six digits."""
    mean, std = (" ".join(f"{value:.6g}" for value in one.tolist()) for one in (source.mean, source.std))
    return f"mean {mean}, std {std}"


def scores_key(
    one: Resolved, protocol: Protocol, part: Part, order_hash: str, sentences: Sequence[str]
) -> str:
    """Return the key of the scores with some sentences that all methods on one model, shift and order share."""
    shared = (
        "model", "weights", "preprocessing", "normalisation", "class_list", "label_mask", "subset", "seed",
        "precision", "device",
    )  # fmt: skip
    facts = {name: getattr(protocol, name) for name in shared}
    return digest(
        [facts, sentences_hash(sentences), str(part.shift), part.images.data_hash, order_hash], ID_LENGTH
    )


def make_manifest(one: Resolved) -> Manifest:
    """Return the manifest of a cell before it runs."""
    protocol, card, baseline = protocol_card(one), one.method.card, is_baseline(one.method)
    bad = {name for part in one.stream.parts for name in getattr(part.images, "bad_images", [])}
    return Manifest(
        id=one.cell.id(protocol),
        cell=one.cell,
        protocol=protocol,
        protocol_hash=protocol.hash,
        machine=describe_machine(one.source.device),
        clock=Clock(TIMER, int(one.stream.batches > 1), "time of the step over its images"),
        versions=versions(),
        revision=revision(),
        notes=Notes(
            sees="image" if one.cell.reset == "image" or baseline else "batch",
            baseline=baseline,
            demonstration=one.dataset.demonstration,
            random_weights=not one.cell.pretrained,
            adapted_tensors=one.info.adapted_tensors,
            predicts=card.predicts,
            output=card.output,
            paper=card.paper,
            category=card.category,
            prompt_set=_prompt_set(one.cell.prompts) if one.source.text else "",
            classes=one.source.binding,
            bad_images=tuple(sorted(bad)),
            of_method=one.info.notes,
            cautions=one.cautions,
        ),
    )
