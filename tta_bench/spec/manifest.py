# SPDX-License-Identifier: Apache-2.0
"""The manifest of a cell: what was run, under which protocol, on what, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tta_bench.errors import DamagedError, StoreError
from tta_bench.spec.cell import Cell
from tta_bench.spec.plain import NotPlainError, from_plain, to_plain
from tta_bench.spec.protocol import Protocol
from tta_bench.spec.texts import masked

SCHEMA_VERSION = 3
"""Version of records and manifests together; raised whenever a column or a fact changes its meaning."""

MOST_WAITING, MOST_LOAD = 0.05, 1.25
"""Share of waiting, and load per processor, beyond which times are noisy."""

Status = Literal["running", "complete", "failed", "collapsed"]


@dataclass(frozen=True)
class Machine:
    """The conditions that clocks and memory figures depend on.

    Attributes:
        device: Kind of device.
        device_name: Its model.
        instructions: Instruction set that torch's kernels use on the processor.
        threads: Threads that torch computes with.
        cores: Processors of the machine.
        system: Operating system.
        architecture: Instruction set.
        torch_build: Version of torch with its build.
        cuda: Version of CUDA, on such a device.
        device_mib: Memory of a device of its own; on mps what Metal recommends at most.
    """

    device: str
    device_name: str
    instructions: str
    threads: int
    cores: int | None
    system: str
    architecture: str
    torch_build: str
    cuda: str | None = None
    device_mib: int | None = None


@dataclass(frozen=True)
class Clock:
    """The clocks and their settings.

    Attributes:
        timer: The timer.
        warmup_batches: Batches that count for accuracy and not for the clocks.
        per_image: What the milliseconds of an image are.
    """

    timer: str
    warmup_batches: int
    per_image: str


@dataclass(frozen=True)
class Notes:
    """Facts that a reader of the numbers should know besides the protocol.

    Attributes:
        sees: Whether a prediction depends on its own image alone, or on a batch.
        baseline: Whether the method's predictions are the source scores.
        demonstration: Whether the data only demonstrate.
        random_weights: Whether the weights are random.
        adapted_tensors: Names of the tensors that the method changes.
        predicts: Which side of the update the prediction comes from.
        output: What the scores are.
        paper: Where the method is described.
        category: What a prediction draws on besides the source model.
        prompt_set: Name of the prompt templates; empty without a text side.
        classes: How the classes were matched with the model's outputs; empty where they are its outputs in order.
        bad_images: Ids of the images that were left out because they cannot be decoded.
        of_method: Choices that the method made by itself for this model.
        cautions: What to know before the numbers are trusted, one sentence each; they were shown during the run.
    """

    sees: Literal["image", "batch"] = "batch"
    baseline: bool = False
    demonstration: bool = False
    random_weights: bool = False
    adapted_tensors: tuple[str, ...] = ()
    predicts: str = "after"
    output: str = "logits"
    paper: str = ""
    category: str = ""
    prompt_set: str = ""
    classes: str = ""
    bad_images: tuple[str, ...] = ()
    of_method: Mapping[str, Any] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Load:
    """The load of the machine while a cell was timed; None where the system does not report it.

    Attributes:
        before: Processes that were ready to run over the minute before.
        after: The same at the end.
        waited: Share of its time that the computing thread was ready and waited for a processor.
        gpu_mhz: Clock of the GPU at the end.
        gpu_most_mhz: Its highest clock.
        gpu_slowed: Whether heat or power slowed it.
    """

    before: float | None = None
    after: float | None = None
    waited: float | None = None
    gpu_mhz: int | None = None
    gpu_most_mhz: int | None = None
    gpu_slowed: bool | None = None

    def noisy(self, cores: int | None) -> bool:
        """Return whether other work made the times too long to be believed.

        The share of waiting decides where it is known; else a load average beyond the machine's processors.

        Args:
            cores: Processors of the machine.
        """
        if self.gpu_slowed:
            return True
        if self.waited is not None:
            return self.waited > MOST_WAITING
        busiest = max((one for one in (self.before, self.after) if one is not None), default=0.0)
        return cores is not None and busiest > MOST_LOAD * cores


@dataclass(frozen=True)
class Outcome:
    """A cell's results besides its rows; all but ``init_ms`` is written before the rows that it follows from.

    Attributes:
        init_ms: Milliseconds spent in the method's ``init``, also where its result was reused.
        init_reused: Whether the initial state was read from the cache.
        finite: Whether all scores so far are finite.
        absolute_peak_mib: Most memory on the device, where it is measured.
        images_at_once: Images adapted at once, where each is an episode of its own.
        peak_rss_mib: Peak resident memory of the process.
        load: How busy the machine was; None where it was not noted.
        out_of_memory: How often the device ran out of memory and fewer images or views were taken at once.
        views_at_once: Views encoded at once, where they were fewer than there are.
        seconds: Wall time of the images that were computed last, with loading; a resumed cell counts from there.
        computed: How many images those were.
        state_mib: The state that is carried from step to step, at the end; None where each step starts afresh.
        shards: Ranges of images that were computed apart.
    """

    init_ms: float | None = None
    init_reused: bool = False
    finite: bool = True
    absolute_peak_mib: float | None = None
    images_at_once: int | None = None
    peak_rss_mib: float | None = None
    load: Load | None = None
    out_of_memory: int = 0
    views_at_once: int | None = None
    seconds: float | None = None
    computed: int = 0
    state_mib: float | None = None
    shards: int = 1


@dataclass(frozen=True)
class Manifest:
    """Describe one cell completely enough to repeat it and to decide what it may be compared with.

    Attributes:
        id: Content-addressed id of the cell; the name of its folder.
        cell: The cell.
        protocol: Its protocol card.
        machine: What it was measured on.
        clock: How the clocks were read.
        versions: Package name to version.
        status: How far the cell came; ``collapsed`` means that scores stopped being finite.
        notes: What a reader should know besides.
        outcome: What the cell left besides its rows.
        images: Rows recorded.
        revision: Git revision of tta-bench, where there is one.
        started: ISO 8601 time in UTC.
        finished: ISO 8601 time in UTC; None while running.
        remeasured: ISO 8601 time in UTC at which it was timed again; empty: its times are of its own run. Machine,
            clock and outcome are then of that time, versions and revision of the predictions.
        error: Traceback of a failed cell.
        warnings: What libraries and plug-ins warned of while the cell ran, each once.
        records_sha256: Of the bytes of ``records.parquet``; empty until there is one.
        protocol_hash: Hash of the protocol card.
        schema_version: Version of this manifest and of the records beside it.
    """

    id: str
    cell: Cell
    protocol: Protocol
    machine: Machine
    clock: Clock
    versions: Mapping[str, str] = field(default_factory=dict)
    status: Status = "running"
    notes: Notes = field(default_factory=Notes)
    outcome: Outcome = field(default_factory=Outcome)
    images: int = 0
    revision: str | None = None
    started: str = ""
    finished: str | None = None
    remeasured: str = ""
    error: str | None = None
    warnings: tuple[str, ...] = ()
    records_sha256: str = ""
    protocol_hash: str = ""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """Return the manifest as indented JSON with a final newline; passwords in URLs are masked."""
        return (masked(json.dumps(to_plain(self), indent=2, sort_keys=True)) + "\n").encode()


def parse_manifest(text: bytes, path: str) -> Manifest:
    """Parse and validate the bytes of a manifest.

    Args:
        text: Content of ``manifest.json``.
        path: Where it was read, for the error message.

    Raises:
        DamagedError: If it is not JSON or not a manifest.
        StoreError: If it is of another schema version.
    """
    data = parse_json_object(text, path)
    check_version(data.get("schema_version"), path)
    try:
        return from_plain(Manifest, data)
    except NotPlainError as error:
        raise DamagedError(
            f"{path} is not a manifest of tta-bench: {error}; run the same command again"
        ) from error


def parse_json_object(text: bytes, path: str) -> dict[str, Any]:
    """Return the JSON object in a file of the store.

    Raises:
        DamagedError: If the bytes are not JSON or not an object.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError(
            f"{path} should hold JSON and is damaged ({error}); run the same command again"
        ) from error
    if not isinstance(data, dict):
        raise DamagedError(
            f"{path} should hold a JSON object, not a {type(data).__name__}; run the same command again"
        )
    return data


def check_version(version: object, path: str) -> None:
    """Refuse a schema version that this tta-bench cannot read.

    Raises:
        StoreError: If the version is missing, not a positive integer, or not ``SCHEMA_VERSION``.
    """
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise StoreError(
            f"{path} should give its schema_version as a positive integer, got {version!r}; "
            "it was not written by tta-bench, so choose another run folder"
        )
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer tta-bench (schema {version}, this one reads "
            f"{SCHEMA_VERSION}); upgrade with pip install -U tta-bench"
        )
    if version < SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by an older tta-bench (schema {version}, this one reads {SCHEMA_VERSION}), whose "
            "cells state less than tables now compare; run the same command again into a new folder with output=",
            options=("output",),
        )
