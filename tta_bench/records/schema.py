# SPDX-License-Identifier: Apache-2.0
"""The columns of the records that the store holds, one row per image; `tta_bench.spec.manifest` versions them."""

from __future__ import annotations

import pyarrow as pa

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
        pa.field("zero_shot_prediction", pa.int32()),
        pa.field("view_ms", pa.float32()),
        pa.field("encode_ms", pa.float32()),
        pa.field("adapt_ms", pa.float32()),
        pa.field("predict_ms", pa.float32()),
        pa.field("peak_mib", pa.float32()),
        pa.field("cached", pa.bool_()),
        _required("batch_size", pa.int32()),
        _required("warmup", pa.bool_()),
        _required("reset", pa.bool_()),
        _required("seed", pa.int64()),
    ]
)
"""Columns of a record, in file order.

``position`` is the 0-based place of the image in the stream of its cell and grows without repeating.
``entropy`` is in nats. ``zero_shot_prediction`` is that of the class prompts that the method itself encodes; null
where these are the source model's or there is no text side. The four ``*_ms`` columns are milliseconds per image,
amortised over the images of the step; one is null where that part did not run. ``peak_mib`` is null where memory was
not probed. ``cached`` says that features were read from the cache, and that ``view_ms`` and ``encode_ms`` are what
making them took; null where the method works on images. ``batch_size`` counts the images of the row's batch, also
where memory made the step take them in smaller groups (the manifest's ``images_at_once``). ``warmup`` rows count for
accuracy, not for clocks. ``reset`` says that the row's step started from the initial state.
"""

ADDED: frozenset[str] = frozenset({"zero_shot_prediction", "cached"})
"""Columns that records of this schema may be missing, since they were added to it; then they are null."""
REQUIRED_COLUMNS: frozenset[str] = frozenset(field.name for field in RECORD_SCHEMA if not field.nullable)
CLOCK_COLUMNS: tuple[str, ...] = ("view_ms", "encode_ms", "adapt_ms", "predict_ms")
