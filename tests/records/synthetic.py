# SPDX-License-Identifier: Apache-2.0
"""Synthetic run folders of any size, made in one go per cell, with known numbers of correct rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tta_bench.records.store import Store
from tta_bench.spec import Cell, Manifest, Notes, Outcome, Protocol
from tta_bench.spec.manifest import Clock, Machine


def records(
    images: int,
    *,
    shift: str = "imagenet-c:fog:5",
    seed: int = 0,
    rate: float = 0.6,
    classes: int = 10,
    batch_size: int = 50,
    start: int = 0,
    generator: np.random.Generator | None = None,
) -> dict[str, Any]:
    """Columns of ``images`` rows whose predictions are right with probability ``rate``."""
    draw = generator or np.random.default_rng(seed)
    label = np.arange(images) % classes
    wrong = (label + draw.integers(1, classes, images)) % classes
    source_wrong = (label + draw.integers(1, classes, images)) % classes
    prediction = np.where(draw.random(images) < rate, label, wrong)
    return {
        "image_id": [f"val/{index:08d}.png" for index in range(images)],
        "shift": shift,
        "position": np.arange(start, start + images),
        "label": label,
        "prediction": prediction,
        "confidence": draw.uniform(0.1, 1.0, images).astype(np.float32),
        "entropy": draw.uniform(0, 2, images).astype(np.float32),
        "top5": (prediction[:, None] + np.arange(5)) % classes,
        "source_prediction": np.where(draw.random(images) < 0.5, label, source_wrong),
        "source_confidence": draw.uniform(0.1, 1.0, images).astype(np.float32),
        "adapt_ms": draw.gamma(4, 1, images).astype(np.float32),
        "view_ms": np.full(images, 0.25, np.float32),
        "batch_size": batch_size,
        "warmup": np.arange(images) < batch_size,
        "reset": np.arange(images) == 0,
        "seed": seed,
    }


CELL = {
    "method": "tent",
    "hyperparameters": {"lr": 0.001},
    "method_hash": "a" * 64,
    "model": "pocket-bn",
    "dataset": "imagenet-c",
    "shifts": ("imagenet-c:fog:5",),
    "subset": "first-100",
    "batch_size": 50,
    "reset": "shift",
}
PROTOCOL = {
    "class_list": "c",
    "label_mask": None,
    "precision": "float32",
    "device": "cpu",
    "scenario": "iid",
    "severity": (5,),
    "subset": "first-100",
    "images_used": 100,
    "images_available": 1000,
    "data_hash": "d",
    "data_seed": 0,
    "origin": "as distributed",
    "weights": "b" * 64,
    "preprocessing": "none",
    "normalisation": "mean 0, std 1",
    "batch_size": 50,
    "reset": "shift",
    "prompts": "",
    "views": "",
    "source_data": "none",
    "source_split": "",
    "hyperparameters_chosen": "published",
}
MACHINE = Machine("cpu", "a processor", "AVX2", 2, 2, "Linux", "x86_64", "2.14.1")


def manifest(name: str, **changes: Any) -> Manifest:
    """A manifest with plausible facts; changes go to the cell, the protocol, the notes and the outcome by name."""
    given = {kind: changes.pop(kind, {}) for kind in ("cell", "protocol", "notes", "outcome")}
    cell = Cell(**CELL | given["cell"])
    derived = {"model": cell.model, "seed": cell.seed, "order_hash": f"order-{cell.seed}"}
    facts = {
        "machine": MACHINE,
        "clock": Clock("a timer", 1, "time of the step over its images"),
        "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:01:00Z",
        **changes,
    }
    return Manifest(
        id=name,
        cell=cell,
        protocol=Protocol(**PROTOCOL | derived | given["protocol"]),
        notes=Notes(**given["notes"]),
        outcome=Outcome(**{"init_ms": 2.0} | given["outcome"]),
        **facts,
    )


def put_cell(store: Store, facts: Manifest, columns: Mapping[str, Any]) -> Manifest:
    """Write one finished cell."""
    writer = store.writer(facts.id, resume=False)
    writer.append(columns)
    return writer.finish(facts)


def run_folder(url: str, *, cells: int = 200, images: int = 5000, shifts: int = 20) -> Store:
    """Write ``cells`` cells of ``images`` rows: methods times shifts; the first method is ``source``."""
    store = Store(url).open(create=True)
    generator = np.random.default_rng(0)
    for index in range(cells):
        method, place = divmod(index, shifts)
        shift = f"imagenet-c:kind{place:02d}:5"
        cell = {"method": "source" if method == 0 else f"method{method}", "shifts": (shift,)}
        columns = records(images, shift=shift, rate=0.5 + 0.01 * method, generator=generator)
        put_cell(store, manifest(f"cell{index:04d}", cell=cell, protocol={"images_used": images}), columns)
    return store
