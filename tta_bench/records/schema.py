# SPDX-License-Identifier: Apache-2.0
"""What the store holds: one record per image and one manifest per cell, under one schema version."""

from __future__ import annotations

import json
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, field_validator

SCHEMA_VERSION = 1
"""Version of records and manifests together; raised whenever a column or a fact changes its meaning."""

TEXT = pa.dictionary(pa.int32(), pa.string())


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


RECORD_SCHEMA: pa.Schema = pa.schema(
    [
        _required("cell", TEXT),
        _required("image_id", pa.string()),
        _required("shift", TEXT),
        _required("position", pa.int32()),
        _required("label", pa.int32()),
        _required("prediction", pa.int32()),
        _required("confidence", pa.float32()),
        _required("entropy", pa.float32()),
        _required("top5", pa.list_(pa.int32())),
        _required("source_prediction", pa.int32()),
        _required("source_confidence", pa.float32()),
        pa.field("teacher_prediction", pa.int32()),
        pa.field("teacher_confidence", pa.float32()),
        pa.field("view_ms", pa.float32()),
        pa.field("encode_ms", pa.float32()),
        pa.field("adapt_ms", pa.float32()),
        pa.field("predict_ms", pa.float32()),
        pa.field("peak_mib", pa.float32()),
        _required("batch_size", pa.int32()),
        _required("warmup", pa.bool_()),
        _required("reset", pa.bool_()),
        _required("seed", pa.int64()),
    ]
)
"""Columns of a record, in file order.

``position`` is the 0-based place of the image in the stream of its cell and grows without repeating.
``entropy`` is in nats. The four ``*_ms`` columns are milliseconds per image, amortised over the images of
the step; one is null where that part did not run. ``peak_mib`` is null where memory was not probed.
``batch_size`` counts the images of the row's batch, also where memory made the step take them in smaller
groups (the manifest's ``images_at_once``). ``warmup`` rows count for accuracy, not for clocks.
``reset`` says that the state was made anew before the row's step.
"""

REQUIRED_COLUMNS: frozenset[str] = frozenset(field.name for field in RECORD_SCHEMA if not field.nullable)
CLOCK_COLUMNS: tuple[str, ...] = ("view_ms", "encode_ms", "adapt_ms", "predict_ms")

Status = Literal["running", "complete", "failed", "collapsed"]


def _no_facts() -> dict[str, dict[str, Any]]:
    return {"comparable": {}, "columns": {}}


class Manifest(BaseModel):
    """Describe one cell completely enough to repeat it and to decide what it may be compared with.

    Attributes:
        schema_version: Version of this manifest and of the records beside it.
        cell: Content-addressed id of the cell; the name of its folder.
        status: How far the cell came; ``collapsed`` means that the scores stopped being finite or useful.
        spec: Method, preset, hyperparameters (all, with defaults), model, pretrained, dataset, shifts, seed,
            batch_size, reset, limit, precision, device, method_hash, weights_sha256, data_hash, order_hash.
        protocol: ``comparable`` facts must agree within a table, ``columns`` facts are shown in it.
        protocol_hash: Hash of ``protocol``.
        versions: Package name to version.
        machine: Device name, thread count and what else the clocks depend on.
        clock: How the clocks were read and how many warm-up batches were dropped.
        revision: Git revision of tta-bench, where there is one.
        started: ISO 8601 time in UTC.
        finished: ISO 8601 time in UTC; None while running.
        images: Rows recorded.
        init_ms: Milliseconds spent in the method's ``init``.
        finite: Whether all scores were finite; false as soon as one was not, also while running.
        absolute_peak_mib: Most memory on the device, where it was measured; else None.
        images_at_once: Images that were adapted at once under an ``image`` reset, as memory allowed; else None.
        peak_rss_mib: Peak resident memory of the process.
        error: Traceback of a failed cell.
        notes: Free facts for reports: ``variant``, ``demonstration``, ``random_weights``, ``sees``, bad
            images.
    """

    model_config = ConfigDict(extra="allow")

    schema_version: int = SCHEMA_VERSION
    cell: str
    status: Status = "running"
    spec: dict[str, Any] = Field(default_factory=dict)
    protocol: dict[str, dict[str, Any]] = Field(default_factory=_no_facts)
    protocol_hash: str = ""
    versions: dict[str, Any] = Field(default_factory=dict)
    machine: dict[str, Any] = Field(default_factory=dict)
    clock: dict[str, Any] = Field(default_factory=dict)
    revision: str | None = None
    started: str = ""
    finished: str | None = None
    images: int = 0
    init_ms: float | None = None
    finite: bool = True
    absolute_peak_mib: float | None = None
    images_at_once: int | None = None
    peak_rss_mib: float | None = None
    error: str | None = None
    notes: dict[str, Any] = Field(default_factory=dict)

    @field_validator("protocol")
    @classmethod
    def _both_kinds(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        missing = {"comparable", "columns"} - value.keys()
        if missing:
            raise ValueError(f"protocol must have 'comparable' and 'columns', lacks {sorted(missing)}")
        return value

    @property
    def comparable(self) -> dict[str, Any]:
        """Return the protocol facts that must agree within a table."""
        return self.protocol["comparable"]

    @property
    def columns(self) -> dict[str, Any]:
        """Return the protocol facts that may differ within a table and are shown in it."""
        return self.protocol["columns"]

    def to_json(self) -> bytes:
        """Return the manifest as indented JSON with a final newline."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n").encode()
