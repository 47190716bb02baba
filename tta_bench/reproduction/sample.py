# SPDX-License-Identifier: Apache-2.0
"""A committed sample of results: what was run, on what, and each image's prediction. Read without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from tta_bench.errors import BadInputError
from tta_bench.spec.whole import write_whole

FILE = "pocket.json"
SEPARATOR = " · "
TOLD_BELOW = 0.02
"""Margins below this are kept in the file; larger ones cannot be ties and are read as 1."""


class Cell(NamedTuple):
    """The predictions of one method on one model over one shift.

    Attributes:
        name: Method, model and shift.
        predictions: Class index of each image, in the order of the stream.
        margins: Probability of the best class above the second best, for each image.
        accuracy: Share of the predictions that are right.
        weights: SHA-256 of the model's weights.
        images: Hash of what the images were made from.
        order: Hash of their order.
        pixels: SHA-256 of the images as the model saw them, 8 bits a value.
    """

    name: str
    predictions: tuple[int, ...]
    margins: tuple[float, ...]
    accuracy: float
    weights: str
    images: str
    order: str
    pixels: str

    @property
    def shift(self) -> str:
        """The shift, from the name."""
        return self.name.rpartition(SEPARATOR)[2]

    @property
    def corrupted(self) -> bool:
        """Whether the images were corrupted on the fly, so that single values may differ by 1 in 255."""
        return ":" in self.shift


class Sample(NamedTuple):
    """A sample of results.

    Attributes:
        asked: Options of the run.
        made_on: Processor, instruction set and versions.
        cells: What it gave.
    """

    asked: dict[str, Any]
    made_on: dict[str, str]
    cells: tuple[Cell, ...]


def cell_name(method: str, model: str, shifts: Sequence[str]) -> str:
    """Return what a cell is called in a sample."""
    return SEPARATOR.join([method, model, ",".join(shifts)])


def read_sample(path: Path | None = None) -> Sample:
    """Return a committed sample; that of this package if no file is named.

    Raises:
        BadInputError: If the file is not a sample.
    """
    source = files("tta_bench.reproduction") / FILE if path is None else path
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        return Sample(content["asked"], content["made_on"], tuple(map(_cell, content["cells"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"expected a sample that `tta-bench doctor --record` wrote, but {source} cannot be read: {error!r}"
        ) from error


def write_sample(sample: Sample, path: Path) -> None:
    """Write a sample as JSON, one cell a line."""
    cells = ",\n  ".join(json.dumps(_entry(cell), ensure_ascii=False) for cell in sample.cells)
    head = f' "asked": {json.dumps(sample.asked)},\n "made_on": {json.dumps(sample.made_on)}'
    write_whole(path, f'{{\n{head},\n "cells": [\n  {cells}\n ]\n}}\n')


def _entry(cell: Cell) -> dict[str, Any]:
    near = {str(i): float(f"{m:.2g}") for i, m in enumerate(cell.margins) if m < TOLD_BELOW}
    return cell._asdict() | {"predictions": " ".join(map(str, cell.predictions)), "margins": near}


def _cell(entry: Mapping[str, Any]) -> Cell:
    predictions = tuple(map(int, entry["predictions"].split()))
    near: Mapping[str, float] = entry["margins"]
    margins = tuple(float(near.get(str(i), 1.0)) for i in range(len(predictions)))
    return Cell(**{**entry, "predictions": predictions, "margins": margins})
