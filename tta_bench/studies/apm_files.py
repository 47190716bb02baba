# SPDX-License-Identifier: Apache-2.0
"""The points of a study as a CSV file and as a plot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tta_bench.errors import BadInputError
from tta_bench.metrics.accuracy import Interval
from tta_bench.spec.whole import whole

if TYPE_CHECKING:
    from tta_bench.studies.apm import Point
    from tta_bench.studies.levels import LevelPoint

PANELS = (
    ("accuracy", "accuracy"),
    ("agreement", "agreement with the teacher"),
    ("loss", "loss"),
    ("other", "cosine with the target, on another image"),
)
DIGITS = 5


def make_folder(folder: Path) -> None:
    """Make the folder of the files, before anything is computed.

    Raises:
        BadInputError: If that cannot be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(
            f"output {folder} cannot be made ({error.strerror}); choose another folder", options=("output",)
        ) from error


def write_csv(points: Sequence[Point] | Sequence[LevelPoint], path: Path) -> None:
    """Write one row per point; an interval is three columns."""
    rows = [_flat(point) for point in points]
    with whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _flat(point: Point | LevelPoint) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in point._asdict().items():
        if isinstance(value, Interval):
            for part, number in value._asdict().items():
                row[name if part == "value" else f"{name}_{part}"] = f"{number:.{DIGITS}g}"
        else:
            row[name] = value
    return row


def plot(points: Sequence[Point], path: Path) -> None:
    """Draw accuracy, agreement, loss and image dependence over updates, one line per setting.

    Raises:
        BadInputError: If matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BadInputError(
            "a plot needs matplotlib; install it with pip install 'tta-bench[plots]'"
        ) from error
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(2, 2)
    lines = _lines(points)
    for axis, (name, title) in zip(axes.flat, PANELS, strict=True):
        for index, (label, line) in enumerate(lines.items()):
            _draw(axis, line, name, label, f"C{index}")
        if name == "accuracy":
            axis.axhline(points[0].teacher.value, color="black", linestyle="--", label="teacher")
        axis.set(title=title, xlabel="updates", xscale="symlog", yscale="log" if name == "loss" else "linear")
        axis.set_xlim(0, 1.1 * max(point.updates for point in points))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize="small", loc="lower right")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "study"}), whole(path) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})


def _lines(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Return the points of every setting by its label."""
    lines: dict[str, list[Point]] = {}
    for point in points:
        lines.setdefault(f"lr {point.lr:g}, {point.weights / 1e3:,.0f} k weights", []).append(point)
    return lines


def _draw(axis: Any, line: Sequence[Point], name: str, label: str, colour: str) -> None:
    values = [getattr(point, name) for point in line]
    updates = [point.updates for point in line]
    axis.plot(updates, [one.value for one in values], color=colour, label=label)
    axis.fill_between(
        updates, [one.low for one in values], [one.high for one in values], color=colour, alpha=0.12
    )
