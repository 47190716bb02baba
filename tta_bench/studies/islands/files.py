# SPDX-License-Identifier: Apache-2.0
"""The rows of a study of islands as a CSV file, and its curves as a figure."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tta_bench.errors import BadInputError
from tta_bench.metrics.accuracy import Interval
from tta_bench.spec.texts import spreadsheet_row
from tta_bench.spec.whole import whole
from tta_bench.studies.islands.dense import DenseRow
from tta_bench.studies.islands.measure import Curve, LayerRow

DIGITS = 6
LEAST_SHOWN = 0.1
"""Lowest ratio on a logarithmic axis, which has no 0."""
PANELS = (
    ("agreement", "mean cosine of adjacent locations", (-1.0, 1.0)),
    ("size_over_chance", "size of islands over chance", (LEAST_SHOWN, math.inf)),
    ("dimension", "effective dimension", (0.0, math.inf)),
)
"""Field, title, and the range that drawn intervals are cut to; those of few images reach beyond what is possible."""


def write_rows(rows: Sequence[LayerRow] | Sequence[DenseRow], path: Path) -> None:
    """Write rows under their column names."""
    with whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0]._fields)
        for row in rows:
            values = spreadsheet_row(row)
            writer.writerow(
                [f"{value:.{DIGITS}g}" if isinstance(value, float) else value for value in values]
            )


def plot_curves(found: Sequence[Curve], path: Path) -> None:
    """Draw agreement, size of islands and dimension over the layers, with 95% intervals over images.

    Raises:
        BadInputError: If matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BadInputError(
            "a plot needs matplotlib; install it with pip install 'tta-bench[plots]', or leave the plot out"
        ) from error
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(1, len(PANELS))
    for axis, (name, title, bounds) in zip(axes.flat, PANELS, strict=True):
        for index, curve in enumerate(found):
            _draw(axis, curve, name, f"C{index}", bounds)
        axis.set(
            title=title, xlabel="layer or update", yscale="log" if name == "size_over_chance" else "linear"
        )
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize="x-small")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "islands"}), whole(path) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})


def _draw(axis: Any, curve: Curve, name: str, colour: str, bounds: tuple[float, float]) -> None:
    values = getattr(curve, name)
    places = range(len(curve.layers))
    label = f"{curve.model}, {curve.control}" if curve.control else curve.model
    axis.plot(places, [one.value for one in values], color=colour, marker=".", label=label)
    if all(one.low == one.low for one in values):  # one image has no interval
        low, high = ([min(max(end, bounds[0]), bounds[1]) for end in ends] for ends in _ends(values))
        axis.fill_between(places, low, high, color=colour, alpha=0.15)
    if name == "agreement":
        axis.plot(places, [one.value for one in curve.chance], color=colour, linestyle=":", linewidth=1)
    axis.set_xticks(list(places), [str(layer) for layer in curve.layers])


def _ends(values: Sequence[Interval]) -> tuple[list[float], list[float]]:
    return [one.low for one in values], [one.high for one in values]
