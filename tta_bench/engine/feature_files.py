# SPDX-License-Identifier: Apache-2.0
"""Features of one shift on disk: what they depend on, and files of some images each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tta_bench.data.stream import Part
from tta_bench.engine.kept import FEATURES, SUFFIX, folder_of, read_kept, size_limit, touch, write_kept
from tta_bench.spec import Manifest, digest
from tta_bench.spec.cell import ID_LENGTH

FORMAT = 1
"""Raised whenever the same facts would lead to other features."""
INDEX = "index.json"
FACTS = (
    "model", "weights", "preprocessing", "normalisation", "precision", "device", "views", "data_seed", "seed",
)  # fmt: skip
"""Protocol facts that features depend on."""
LIBRARIES = ("tta-bench", "torch", "torchvision", "timm", "open_clip_torch")


def feature_facts(manifest: Manifest, part: Part, order_hash: str, at_once: int) -> dict[str, Any]:
    """Return everything that the features of one shift and their recorded times depend on.

    Args:
        manifest: Of a cell that wants them.
        part: The shift.
        order_hash: Of its images alone.
        at_once: Images encoded in one call.
    """
    cell, machine = manifest.cell, manifest.machine
    facts: dict[str, Any] = {name: getattr(manifest.protocol, name) for name in FACTS}
    facts |= {"shift": str(part.shift), "data_hash": part.images.data_hash, "images": len(part.positions)}
    facts |= {"order_hash": order_hash, "encoded_at_once": at_once, "format": FORMAT}
    facts["code"] = [dict(cell.plugin_code), {k: v for k, v in cell.in_process.items() if k != "method"}]
    facts["machine"] = [machine.device_name, machine.instructions, machine.threads, machine.torch_build]
    facts["versions"] = {name: manifest.versions.get(name, "") for name in LIBRARIES}
    return facts


class Charged(NamedTuple):
    """Features of some images, and what each image is charged for them.

    Attributes:
        features: (N, D), or (N, V, D) where there are views, of which the first is the image.
        view_ms: (N,) float32; None without views.
        encode_ms: (N,) float32.
        cached: (N,) bool, whether they were read from the cache.
        peak_mib: Most memory that encoding took; None where nobody probed it.
    """

    features: Tensor
    view_ms: np.ndarray | None
    encode_ms: np.ndarray
    cached: np.ndarray
    peak_mib: float | None


class Block:
    """Some images in a row: those of one file.

    Args:
        start: Place of the first one in the order of the shift.
        stop: Place after the last one.
    """

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.filled = range(start, start)
        self.cached = False
        self.peak_mib: float | None = None
        self.features = torch.empty(0)
        self.encode_ms = np.zeros(stop - start, np.float32)
        self.view_ms: np.ndarray | None = None

    def __contains__(self, row: int) -> bool:
        """Return whether a place in the order is inside."""
        return self.start <= row < self.stop

    @property
    def whole(self) -> bool:
        """Whether the features of all its images are there."""
        return self.filled == range(self.start, self.stop)

    def put(self, rows: range, features: Tensor, view_s: float | None, encode_s: float) -> None:
        """Take the features of rows right behind those that are there; each is charged its share of the seconds."""
        assert rows.start == self.filled.stop
        if not len(self.filled):
            self.features = features.new_empty(self.stop - self.start, *features.shape[1:], device="cpu")
            self.view_ms = None if view_s is None else np.zeros_like(self.encode_ms)
        place = slice(rows.start - self.start, rows.stop - self.start)
        self.features[place] = features.cpu()
        self.encode_ms[place] = 1e3 * encode_s / len(rows)
        if self.view_ms is not None and view_s is not None:
            self.view_ms[place] = 1e3 * view_s / len(rows)
        self.filled = range(self.filled.start, rows.stop)

    def charged(self, start: int, stop: int, device: torch.device) -> Charged:
        """Return some of its images; on the CPU their features are not copied."""
        place = slice(start - self.start, stop - self.start)
        return Charged(
            self.features[place].to(device),
            None if self.view_ms is None else self.view_ms[place].copy(),
            self.encode_ms[place].copy(),
            np.full(stop - start, self.cached),
            self.peak_mib,
        )


class FeatureFolder:
    """The folder of one shift's features, ``index.json`` and numbered files.

    Args:
        facts: From `feature_facts`; their hash is the name of the folder.
        per_file: Images in each file but the last.
        reads: Whether what is there is used; without, it is written again.
    """

    def __init__(self, facts: Mapping[str, Any], per_file: int, *, reads: bool = True) -> None:
        self._facts, self._per_file, self.reads = dict(facts), per_file, reads
        self._key = digest(self._facts, ID_LENGTH)
        self.path = folder_of(FEATURES) / self._key

    def block(self, row: int) -> Block:
        """Return the block that a row is in: from the cache, or an empty one."""
        start = row // self._per_file * self._per_file
        made = Block(start, min(start + self._per_file, int(self._facts["images"])))
        kept = read_kept(*self._named(made)) if self.reads and size_limit() else None
        if kept is None:
            return made
        touch(self.path)
        made.features, made.encode_ms = kept.tensors["features"], kept.tensors["encode_ms"].numpy()
        made.view_ms = kept.tensors["view_ms"].numpy() if "view_ms" in kept.tensors else None
        made.peak_mib = float(kept.facts["peak_mib"]) if "peak_mib" in kept.facts else None
        made.filled, made.cached = range(made.start, made.stop), True
        return made

    def keep(self, block: Block) -> None:
        """Write a whole block; with a limit of 0 nothing is written.

        Raises:
            OSError: If it cannot be written or there is no room for it.
        """
        if not size_limit():
            return
        tensors = {"features": block.features, "encode_ms": torch.from_numpy(block.encode_ms)}
        if block.view_ms is not None:
            tensors["view_ms"] = torch.from_numpy(block.view_ms)
        facts = {} if block.peak_mib is None else {"peak_mib": repr(block.peak_mib)}
        write_kept(*self._named(block), tensors, facts)
        index = self.path / INDEX
        if not index.exists():
            part = index.with_name(f".{INDEX}.{os.getpid()}.part")
            part.write_text(json.dumps(self._facts, indent=1, sort_keys=True), encoding="utf-8")
            part.replace(index)

    def _named(self, block: Block) -> tuple[Path, str]:
        """Return where a block is kept, and under which key."""
        number = block.start // self._per_file
        return self.path / f"{number:05d}{SUFFIX}", f"{self._key} {block.start}:{block.stop}"


def read_index(folder: Path) -> dict[str, Any] | None:
    """Return the facts that a folder of features is of; None if they are not there or not its own."""
    try:
        facts = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and digest(facts, ID_LENGTH) == folder.name else None
