# SPDX-License-Identifier: Apache-2.0
"""Run the cells of a sample, and keep each image's prediction and its margin over the second best class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tta_bench.data.stream import Batch
from tta_bench.engine.machine import PACKAGES, describe_machine, versions
from tta_bench.engine.objects import Objects
from tta_bench.engine.planning import plan
from tta_bench.engine.ports import RowWriter, SavedState, SourceScores
from tta_bench.engine.rows import probabilities
from tta_bench.engine.session import Session
from tta_bench.errors import BadInputError
from tta_bench.reproduction.sample import Cell, Sample, cell_name
from tta_bench.spec import Cell as Planned
from tta_bench.spec import Manifest, make_request

COMPLETE = "complete"
Started = Callable[[str], None]


class Kept:
    """A store in memory: nothing of a recomputation is written."""

    def __init__(self) -> None:
        self.manifests: list[Manifest] = []
        self.rows: list[list[dict[str, Any]]] = []
        self._scores: dict[str, SourceScores] = {}

    def plan(self, cells: Sequence[Planned]) -> None:
        """Keep no plan."""

    def rows_done(self, cell: str, first: int = 0) -> int:
        """Return 0: nothing was begun before."""
        return 0

    def state(self, cell: str) -> SavedState | None:
        """Return None: nothing was begun before."""
        return None

    def shard(self, cell: str, index: int, count: int) -> Kept:
        """Return this store: a recomputation has no shards."""
        return self

    def begin(self, manifest: Manifest, *, rows: int, first: int = 0) -> RowWriter:
        """Return where the rows of a cell go."""
        self.rows.append([])
        return _Rows(self.rows[-1])

    def manifest(self, cell: str) -> Manifest | None:
        """Return None: nothing was begun before."""
        return None

    def note(self, manifest: Manifest) -> None:
        """Keep nothing: no cell is resumed."""

    def finish(self, writer: RowWriter, manifest: Manifest) -> None:
        """Keep the manifest of a cell."""
        self.manifests.append(manifest)

    def scores(self, key: str) -> SourceScores | None:
        """Return source scores that this recomputation has made."""
        return self._scores.get(key)

    def put_scores(self, key: str, scores: SourceScores) -> None:
        """Keep source scores."""
        self._scores[key] = scores


class _Rows:
    """Where the rows of one cell go."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def append(self, columns: Mapping[str, Any]) -> None:
        self._rows.append(dict(columns))

    def keep_state(self, dump: Callable[[], bytes | None]) -> None:
        """Keep nothing: no cell is resumed."""

    def close(self) -> None:
        """Do nothing: the rows are kept already."""


class _Told:
    """Tell the name of each cell as it begins."""

    def __init__(self, started: Started) -> None:
        self._started = started

    def cell_started(self, label: str, done: int, total: int) -> None:
        self._started(label)

    def preparing(self, method: str, done: int, total: int | None) -> None:
        """Tell nothing: the samples of the committed suites are small."""

    def advanced(self, images: int) -> None:
        """Tell nothing: a cell takes a few seconds."""

    def cell_ended(self, label: str, status: str, detail: str = "") -> None:
        if status != COMPLETE:
            self._started(f"{label} ended as {status} {detail}".rstrip())


class _Heard:
    """Keep the margins of every batch."""

    def __init__(self, output: str) -> None:
        self._output = output
        self.margins: list[Tensor] = []

    def __call__(self, batch: Batch, scores: Tensor) -> None:
        self.margins.append(margins_of(scores, self._output))


def recompute(asked: Mapping[str, Any], started: Started = lambda _: None) -> list[Cell]:
    """Run what a sample was made from, on one thread of this CPU, and return its cells.

    Args:
        asked: Options of the run, as `tta_bench.spec.Request` takes them.
        started: Called with the name of each cell.

    Raises:
        BadInputError: If a cell fails.
    """
    kept, objects, threads = Kept(), Objects(), torch.get_num_threads()
    torch.set_num_threads(1)  # how a sum is shared among threads decides its last bits
    try:
        cells = plan(make_request({**asked, "device": "cpu"}))
        return [_cell(cell, kept, objects, started) for cell in cells]
    finally:
        torch.set_num_threads(threads)


def _cell(cell: Planned, kept: Kept, objects: Objects, started: Started) -> Cell:
    heard = _Heard(objects.method(cell).card.output)
    Session(kept, _Told(started), objects, probe_memory=False, scored=heard).run([cell])
    manifest, rows = kept.manifests[-1], kept.rows[-1]
    if manifest.status != COMPLETE:
        raise BadInputError(
            f"expected {cell.label} to run to its end, and it ended as {manifest.status}; run it with "
            "`tta-bench run` to see why"
        )
    predictions = np.concatenate([part["prediction"] for part in rows])
    labels = np.concatenate([part["label"] for part in rows])
    return Cell(
        name=cell_name(cell.method, cell.model, cell.shifts),
        predictions=tuple(predictions.tolist()),
        margins=tuple(torch.cat(heard.margins).tolist()),
        accuracy=float((predictions == labels).mean()),
        weights=manifest.protocol.weights,
        images=manifest.protocol.data_hash,
        order=manifest.protocol.order_hash,
        pixels=_pixels(cell, objects),
    )


def _pixels(cell: Planned, objects: Objects) -> str:
    """Return the hash of the pixels of a cell's stream, which methods in feature space do not see."""
    digest = sha256()
    for batch in objects.stream(cell, objects.model(cell)).from_row():
        digest.update(batch.images.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def margins_of(scores: Tensor, output: str) -> Tensor:
    """Return the difference (N,) float64 of the probabilities of the two best classes."""
    best = probabilities(scores, output).nan_to_num(0.0).topk(2, dim=-1).values
    return best[:, 0] - best[:, 1]


def made_on() -> dict[str, str]:
    """Return what results hang on here: processor, instruction set, and the versions that matter."""
    machine = describe_machine(torch.device("cpu"))
    facts = {"processor": machine.device_name, "instructions": machine.instructions}
    return facts | {name: text for name, text in versions().items() if name in ("tta-bench", *PACKAGES)}


def sample_of(
    asked: Mapping[str, Any], made_on: Mapping[str, str], started: Started = lambda _: None
) -> Sample:
    """Make a sample here, to be committed."""
    return Sample(dict(asked), dict(made_on), tuple(recompute(asked, started)))
