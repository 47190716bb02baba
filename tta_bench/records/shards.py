# SPDX-License-Identifier: Apache-2.0
"""Put the ranges of a cell that were computed apart together: the same rows as if it had been computed in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from tta_bench.errors import StoreError
from tta_bench.records.sink import Sink
from tta_bench.records.store import Store
from tta_bench.spec import Manifest, Outcome
from tta_bench.spec.manifest import Status


def merge(store: Store, cell: str, count: int) -> Manifest:
    """Write the records of a cell from its ranges, and return its manifest; ranges of a failed cell stay.

    Args:
        store: The store.
        cell: Cell id.
        count: How many ranges there are.

    Raises:
        StoreError: If a range is missing or not finished.
    """
    shards = [store.shard(cell, index, count) for index in range(count)]
    parts = [(shard, manifest) for shard in shards if (manifest := shard.manifest(cell))]
    if not parts or any(manifest.status == "running" for _, manifest in parts):
        raise StoreError(
            f"the {count} ranges of cell {cell} in {store.url} should be finished and are not; run the same command "
            "again with resume=True",
            options=("resume",),
        )
    manifests = [manifest for _, manifest in parts]
    failed = next((one for one in manifests if one.status == "failed"), None)
    running = replace(
        manifests[0], status="running", outcome=Outcome(), images=0, records_sha256="", finished=None
    )
    writer = Sink(store).begin(running, rows=0)
    for shard, manifest in parts:
        if manifest.records_sha256:  # none of one that was ended by force
            writer.append_table(shard.read(cell))
        if manifest is failed:
            break
    if failed is None and writer.rows != running.protocol.images_used:
        raise StoreError(
            f"the ranges of cell {cell} in {store.url} should hold {running.protocol.images_used} rows and hold "
            f"{writer.rows}; remove {store.url}/shards/{cell} and run the same command again"
        )
    final = writer.finish(_together(running, manifests, failed))
    if failed is None:
        store.remove_shards(cell)
    return final


def _together(running: Manifest, manifests: Sequence[Manifest], failed: Manifest | None) -> Manifest:
    outcome = _outcome([one.outcome for one in manifests])
    status: Status = "failed" if failed else "complete" if outcome.finite else "collapsed"
    return replace(
        running,
        status=status,
        error=failed.error if failed else None,
        outcome=outcome,
        warnings=tuple(dict.fromkeys(text for one in manifests for text in one.warnings)),
        started=min(one.started for one in manifests),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _outcome(each: Sequence[Outcome]) -> Outcome:
    """Return what the ranges left together; times add up, as each range was computed on its own."""

    def known(name: str) -> list[float]:
        return [value for one in each if (value := getattr(one, name)) is not None]

    def most(name: str) -> float | None:
        return max(known(name), default=None)

    at_once = [one.images_at_once for one in each if one.images_at_once is not None]
    views = [one.views_at_once for one in each if one.views_at_once is not None]
    return Outcome(
        init_ms=most("init_ms"),
        init_reused=all(one.init_reused for one in each),
        finite=all(one.finite for one in each),
        absolute_peak_mib=most("absolute_peak_mib"),
        images_at_once=min(at_once, default=None),
        peak_rss_mib=most("peak_rss_mib"),
        out_of_memory=sum(one.out_of_memory for one in each),
        views_at_once=min(views, default=None),
        seconds=sum(known("seconds")) or None,
        computed=sum(one.computed for one in each),
        shards=len(each),
    )
