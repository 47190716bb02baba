# SPDX-License-Identifier: Apache-2.0
"""Measure what each layer's locations agree on, image by image, and say it in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.metrics.accuracy import Interval, mean_over_shifts
from tta_bench.metrics.islands import agree
from tta_bench.spec import counter_seed
from tta_bench.studies.islands.subjects import Still, Subject

THRESHOLD = 0.8
"""Cosine from which two adjacent locations agree by default."""


class LayerRow(NamedTuple):
    """One layer on one image; a row of the CSV file.

    Attributes:
        image: Name of the image.
        model: Name of the model.
        control: What is changed about it; empty for the model itself.
        layer: Number of the layer in its network, or the updates behind a student.
        name: Of the layer's module.
        height: Rows of locations.
        width: Columns of locations.
        channels: Numbers in a feature.
        agreement: Mean cosine of features at adjacent locations.
        chance: Mean cosine of two different locations.
        islands: How many.
        island_size: Locations in one, on average.
        chance_islands: How many on shuffled locations.
        chance_island_size: Locations in one of these, on average.
        dimension: Effective dimension of the features.
    """

    image: str
    model: str
    control: str
    layer: int
    name: str
    height: int
    width: int
    channels: int
    agreement: float
    chance: float
    islands: float
    island_size: float
    chance_islands: float
    chance_island_size: float
    dimension: float


class Curve(NamedTuple):
    """One subject over its layers, averaged over images with 95% intervals.

    Attributes:
        model: Name of the model.
        control: What is changed about it.
        layers: Numbers of the layers.
        unit: What the numbers count: ``"layer"`` or ``"update"``.
        images: How many images.
        agreement: One interval for each layer.
        chance: Likewise.
        size_over_chance: Mean size of an island over that of chance.
        dimension: Effective dimension.
    """

    model: str
    control: str
    layers: tuple[int, ...]
    unit: str
    images: int
    agreement: tuple[Interval, ...]
    chance: tuple[Interval, ...]
    size_over_chance: tuple[Interval, ...]
    dimension: tuple[Interval, ...]


def measure(
    subjects: Sequence[Subject],
    stills: Iterable[Still],
    *,
    threshold: float = THRESHOLD,
    seed: int = 0,
    advanced: Callable[[], None] = lambda: None,
) -> list[LayerRow]:
    """Return one row for each image, subject and layer; the maps of one layer of one image are held at a time.

    Args:
        subjects: Whose layers.
        stills: The images.
        threshold: Cosine from which two adjacent locations agree.
        seed: Of the shuffles behind the chance figures.
        advanced: Called after each image.

    Raises:
        BadInputError: If the threshold is no cosine, or a layer has a single location.
    """
    if not -1 <= threshold <= 1:
        raise BadInputError(f"the threshold must be a cosine from -1 to 1, got {threshold:g}")
    rows: list[LayerRow] = []
    for still in stills:
        for subject in subjects:
            subject.visit(still, _measurer(rows, subject, still, threshold, seed))
        advanced()
    return rows


def _measurer(
    rows: list[LayerRow], subject: Subject, still: Still, threshold: float, seed: int
) -> Callable[[int, Tensor], None]:
    def visit(index: int, maps: Tensor) -> None:
        field = maps[0].double().numpy()
        height, width, channels = field.shape
        if height * width < 2:
            raise BadInputError(
                f"layer {subject.layers[index]} of {subject.model} has a single location, which agrees with none; "
                "choose other layers"
            )
        generator = np.random.default_rng(counter_seed("islands", seed, still.name, index))
        found = agree(field, threshold, generator)
        rows.append(
            LayerRow(
                still.name, subject.model, subject.control, subject.indices[index], subject.layers[index],
                height, width, channels, found.agreement, found.chance, *found.islands, *found.chance_islands,
                found.dimension,
            )
        )  # fmt: skip

    return visit


def curves(rows: Sequence[LayerRow]) -> list[Curve]:
    """Return the curve of every subject, in the order of its first row."""
    return [_curve(rows, *key) for key in dict.fromkeys((row.model, row.control) for row in rows)]


def _curve(rows: Sequence[LayerRow], model: str, control: str) -> Curve:
    own = [row for row in rows if (row.model, row.control) == (model, control)]
    layers = tuple(dict.fromkeys(row.layer for row in own))
    by_layer = [[row for row in own if row.layer == layer] for layer in layers]

    def intervals(value: Callable[[LayerRow], float]) -> tuple[Interval, ...]:
        return tuple(mean_of([value(row) for row in layer]) for layer in by_layer)

    return Curve(
        model, control, layers, "update" if own[0].name.endswith(("update", "updates")) else "layer",
        len({row.image for row in own}),
        intervals(lambda row: row.agreement), intervals(lambda row: row.chance),
        intervals(lambda row: row.island_size / row.chance_island_size), intervals(lambda row: row.dimension),
    )  # fmt: skip


def mean_of(values: Sequence[float]) -> Interval:
    """Return the mean over images with its 95% interval, whose ends are NaN for one image."""
    column = np.asarray(values, dtype=np.float64)
    return mean_over_shifts(column, np.zeros(len(column), dtype=np.int64), np.arange(len(column)))


def sentence(curve: Curve) -> str:
    """Return what the layers of one subject agree on, in one line."""
    values = [interval.value for interval in curve.agreement]
    what = f"{curve.model}{f' ({curve.control})' if curve.control else ''}"
    low, high, chance = values[0], values[-1], curve.chance[-1].value
    if len(values) == 1:
        return f"{what}: agreement is {low:.2f} at {curve.unit} {curve.layers[0]} (chance {chance:.2f})"
    over = (
        f"over {len(values)} {curve.unit}s" if curve.unit == "layer" else f"after {curve.layers[-1]} updates"
    )
    if f"{low:.2f}" == f"{high:.2f}":
        return f"{what}: agreement is {high:.2f} at the first and the last {curve.unit} (chance {chance:.2f})"
    steps = np.diff(values)
    largest = int(np.argmax(steps) if high > low else np.argmin(steps)) + 1
    return (
        f"{what}: agreement {'grows' if high > low else 'falls'} from {low:.2f} to {high:.2f} {over} (chance "
        f"{chance:.2f} at the last); largest step at {curve.unit} {curve.layers[largest]}"
    )
