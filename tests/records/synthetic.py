# SPDX-License-Identifier: Apache-2.0
"""Synthetic run folders of any size, made in one go per cell, with known numbers of correct rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tta_bench.records.schema import Manifest
from tta_bench.records.store import Store


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


def manifest(cell: str, **changes: Any) -> Manifest:
    """A manifest with plausible facts; ``spec``, ``comparable``, ``columns`` and ``notes`` are merged in."""
    merged: dict[str, Mapping[str, Any]] = {
        name: changes.pop(name, {}) for name in ("spec", "comparable", "columns", "notes")
    }
    spec = {
        "method": "tent",
        "preset": "",
        "hyperparameters": {"lr": 0.001},
        "model": "pocket-bn",
        "dataset": "imagenet-c",
        "shifts": ["imagenet-c:fog:5"],
        "seed": 0,
        "method_hash": "a" * 64,
        "weights_sha256": "b" * 64,
        **merged["spec"],
    }
    comparable = {
        "images_used": 100,
        "images_available": 1000,
        "subset": "first-100",
        "order_hash": f"order-{spec['seed']}",
        "severity": 5,
        "class_list_hash": "c",
        "label_mask": None,
        "precision": "float32",
        "device": "cpu",
        **merged["comparable"],
    }
    columns = {
        "model": spec["model"],
        "weights": "b" * 64,
        "preprocessing": "none",
        "reset": "shift",
        "batch_size": 50,
        "prompts": None,
        "source_data": "none",
        "hyperparameters_chosen": "published",
        "seed": spec["seed"],
        **merged["columns"],
    }
    facts = {
        "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:01:00Z",
        "init_ms": 2.0,
        "notes": {"variant": "", **merged["notes"]},
        **changes,
    }
    return Manifest(cell=cell, spec=spec, protocol={"comparable": comparable, "columns": columns}, **facts)


def put_cell(store: Store, facts: Manifest, columns: Mapping[str, Any]) -> Manifest:
    """Write one finished cell."""
    writer = store.writer(facts.cell, resume=False)
    writer.append(columns)
    return writer.finish(facts)


def run_folder(url: str, *, cells: int = 200, images: int = 5000, shifts: int = 20) -> Store:
    """Write ``cells`` cells of ``images`` rows: methods times shifts; the first method is ``source``."""
    store = Store(url).open(create=True)
    generator = np.random.default_rng(0)
    for index in range(cells):
        method, place = divmod(index, shifts)
        shift = f"imagenet-c:kind{place:02d}:5"
        spec = {"method": "source" if method == 0 else f"method{method}", "shifts": [shift]}
        columns = records(images, shift=shift, rate=0.5 + 0.01 * method, generator=generator)
        put_cell(store, manifest(f"cell{index:04d}", spec=spec, comparable={"images_used": images}), columns)
    return store
