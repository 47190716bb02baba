# SPDX-License-Identifier: Apache-2.0
"""The protocol card of a cell, and its content-addressed id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tta_bench.data.images import views
from tta_bench.data.images.source import ImageSource
from tta_bench.data.stream import Stream
from tta_bench.engine.machine import describe_machine, revision, versions
from tta_bench.engine.planning import CellPlan
from tta_bench.engine.split import source_data
from tta_bench.errors import PluginError
from tta_bench.hyperparameters import as_dict, source_hash, variant
from tta_bench.method import Method, ViewPolicy
from tta_bench.models.source import SourceModel
from tta_bench.prompts import sentences_hash
from tta_bench.spec import RunSpec, digest

SCHEMA_VERSION = 1
ID_LENGTH = 20
OWN_NOTES = (
    "variant", "sees", "baseline", "demonstration", "random_weights", "adapts", "predicts", "output", "paper",
    "suite", "bad_images", "prompt_set", "category",
)  # fmt: skip
"""Notes of a manifest that the harness writes and no method may."""


class Told(NamedTuple):
    """What a method says of itself on one source model.

    Attributes:
        policy: How views are made for it.
        adapts: Names of the tensors that it changes.
        notes: Its own notes for the manifest.
        sentences: Those that it encodes besides the source model's.
    """

    policy: ViewPolicy | None = None
    adapts: tuple[str, ...] = ()
    notes: Mapping[str, Any] = {}
    sentences: tuple[str, ...] = ()


def told(method: Method, source: SourceModel) -> Told:
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
    taken = sorted(set(OWN_NOTES) & notes.keys())
    if taken:
        raise PluginError(f"{name}.notes must leave {', '.join(taken)} to the harness; choose other keys")
    return Told(policy, tuple(map(str, method.adapts(source))), notes, tuple(method.sentences(source)))


def is_baseline(method: Method) -> bool:
    """Return whether a method's own predictions are the source scores: its card says that it is idle like this.

    A card that a class inherits is the promise of another class.
    """
    idle = method.card.idle if "card" in vars(type(method)) else None
    return idle is not None and all(getattr(method, name, None) == value for name, value in idle)


def cell_spec(
    cell: CellPlan,
    spec: RunSpec,
    source: SourceModel,
    stream: Stream,
    policy: ViewPolicy | None,
    split: ImageSource | None = None,
) -> dict[str, Any]:
    """Return everything that the predictions of a cell depend on; its hash is the cell's id."""
    return {
        "method": cell.name,
        "preset": cell.preset,
        "hyperparameters": as_dict(cell.method),
        "method_hash": source_hash(type(cell.method)),
        "model": cell.model,
        "pretrained": spec.pretrained,
        "weights_sha256": source.weights_sha256,
        "preprocessing": source.preprocess.describe(),
        "mean": source.mean.tolist(),
        "std": source.std.tolist(),
        "dataset": cell.dataset.name,
        "shifts": [str(shift) for shift in cell.shifts],
        "subset": cell.subset,
        "limit": len(stream.parts[0].positions),
        "data_hash": digest([part.images.data_hash for part in stream.parts], 16),
        "order_hash": stream.order_hash(),
        "class_names": digest(source.class_names, 16),
        "templates": sentences_hash(source.text.sentences) if source.text else "",
        "batch_size": cell.batch_size,
        "reset": cell.reset,
        "seed": cell.seed,
        "precision": spec.precision,
        "device": source.device.type,
        **({"source_split": split.data_hash} if split is not None else {}),
        **({"views": f"{policy.kind} {policy.count} version {views.VERSION}"} if policy is not None else {}),
    }


def cell_id(spec: dict[str, Any]) -> str:
    """Return the id of a cell: the hash of its specification."""
    return digest(spec, ID_LENGTH)


def scores_key(spec: dict[str, Any], shift: str, data_hash: str, order_hash: str) -> str:
    """Return the key of the source scores that all methods on one model, shift and order share."""
    shared = (
        "model", "weights_sha256", "preprocessing", "mean", "std", "class_names", "templates", "subset", "seed",
        "precision", "device",
    )  # fmt: skip
    return digest([{key: spec[key] for key in shared}, shift, data_hash, order_hash], ID_LENGTH)


def protocol_card(
    cell: CellPlan,
    spec: RunSpec,
    source: SourceModel,
    stream: Stream,
    facts: dict[str, Any],
    sentences: tuple[str, ...] = (),
) -> dict[str, dict[str, Any]]:
    """Return the protocol card: facts that must agree within a table, and facts that its columns show.

    ``prompts`` is the hash of every sentence that is encoded: those that the source model is bound to, which student,
    teacher and baseline share, and then those that the method adds.
    """
    severities = sorted({shift.severity for shift in cell.shifts if shift.severity})
    used = source_data(cell.method)
    return {
        "comparable": {
            "images_used": facts["limit"],
            "images_available": len(stream.parts[0].images),
            "subset": cell.subset,
            "order_hash": _base_order(stream),
            "severity": severities,
            "origin": getattr(stream.parts[0].images, "origin", "as distributed"),
            "class_list_hash": facts["class_names"],
            "label_mask": list(cell.dataset.class_indices) if cell.dataset.class_indices else None,
            "precision": spec.precision,
            "device": facts["device"],
        },
        "columns": {
            "model": cell.model,
            "weights": facts["weights_sha256"],
            "preprocessing": facts["preprocessing"],
            "reset": cell.reset,
            "batch_size": cell.batch_size,
            "prompts": sentences_hash((*source.text.sentences, *sentences)) if source.text else "",
            "source_data": ", ".join(used) if used else "none",
            "hyperparameters_chosen": spec.chosen,
            "seed": cell.seed,
        },
    }


def _base_order(stream: Stream) -> str:
    """Return the hash of the image ids in order, without the shifts that they appear under."""
    part = stream.parts[0]
    return digest([part.images.ids[position] for position in part.positions], 16)


def manifest_facts(
    cell: CellPlan,
    spec: RunSpec,
    source: SourceModel,
    stream: Stream,
    said: Told,
    split: ImageSource | None = None,
) -> dict[str, Any]:
    """Return the manifest of a cell before it runs."""
    facts = cell_spec(cell, spec, source, stream, said.policy, split)
    protocol = protocol_card(cell, spec, source, stream, facts, said.sentences)
    card = cell.method.card
    return {
        "schema_version": SCHEMA_VERSION,
        "cell": cell_id(facts),
        "status": "running",
        "spec": facts,
        "protocol": protocol,
        "protocol_hash": digest(protocol, 16),
        "versions": versions(),
        "machine": describe_machine(source.device),
        "clock": {
            "timer": "time.perf_counter, synchronised with the device at both ends",
            "warmup_batches": int(stream.batches > 1),
            "per_image": "time of the step over its images",
        },
        "revision": revision(),
        "notes": {
            "variant": variant(cell.method),
            "sees": "image" if cell.reset == "image" else "batch",
            "baseline": is_baseline(cell.method),
            "demonstration": cell.dataset.demonstration,
            "random_weights": not spec.pretrained,
            "adapts": list(said.adapts),
            "predicts": card.predicts,
            "output": card.output,
            "paper": card.paper,
            "category": card.category,
            "prompt_set": Path(cell.prompts).name if source.text else "",
            **({"suite": dict(spec.suite)} if spec.suite else {}),
            **said.notes,
            "bad_images": sorted(
                {name for part in stream.parts for name in getattr(part.images, "bad_images", [])}
            ),
        },
    }
