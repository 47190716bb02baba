# SPDX-License-Identifier: Apache-2.0
"""Whether adaptation is worth its cost, in a sentence or two for each model: gain, cost, or too few images to tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from tta_bench.metrics.accuracy import Interval
from tta_bench.metrics.paired import holm
from tta_bench.metrics.power import deviation_of, images_needed, p_value
from tta_bench.reports.columns import SOURCE, Row

ALPHA = 0.05
LEAST = 0.005
"""Points below which nobody would adapt: undecided gains smaller than this are judged by this."""
NAMED = 4
Outcome = Literal["gains", "loses", "same", "open"]


class Judged(NamedTuple):
    """One method on one model and dataset.

    Attributes:
        row: Its row.
        outcome: ``gains`` or ``loses`` where its difference to the source model is sure, Holm over the methods of the
            model; ``same`` where it predicts as the source model does; else ``open``.
        times: Its time over that of the source model; None where they do not compare.
        memory: The same of its peak memory.
        needed: Images that would show its difference, or half a point where that is larger; None unless open.
        shown: The difference that these would show, as a fraction.
    """

    row: Row
    outcome: Outcome
    times: float | None
    memory: float | None
    needed: int | None = None
    shown: float | None = None


class Verdict(NamedTuple):
    """The methods on one model and dataset, the largest gain first."""

    model: str
    dataset: str
    judged: tuple[Judged, ...]

    def __str__(self) -> str:
        """Return the verdict in words."""
        return f"{self.model} on {self.dataset}: {' '.join(_sentences(self.judged))}"


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Return a verdict for every model and dataset of a table that has a method besides the source model.

    Args:
        rows: Of a leaderboard, one per dataset or per shift.
    """
    blocks: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.status == "complete" and not row.mixed:
            where = (
                row.dataset
                if ";" in row.shifts or row.shifts == row.dataset
                else f"{row.dataset}:{row.shifts}"
            )
            blocks.setdefault((row.model, where.rstrip(":")), []).append(row)
    return [
        Verdict(model, dataset, judged)
        for (model, dataset), block in blocks.items()
        if (judged := tuple(_judge(block)))
    ]


def _judge(block: Sequence[Row]) -> list[Judged]:
    source = next((row for row in block if row.method == SOURCE), None)
    rows = [row for row in block if row.method != SOURCE and row.gain is not None and (row.images or 0) > 1]
    known = [row for row in rows if row.gain_low is not None and row.gain_high is not None]
    adjusted = holm([p_value(_gain(row), row.images or 0) for row in known])
    judged = [_one(row, p, source) for row, p in zip(known, adjusted, strict=True)]
    return sorted(judged, key=lambda one: -(one.row.gain or 0.0))


def _gain(row: Row) -> Interval:
    assert row.gain is not None
    assert row.gain_low is not None
    assert row.gain_high is not None
    return Interval(row.gain, row.gain_low, row.gain_high)


def _one(row: Row, p: float, source: Row | None) -> Judged:
    gain, images = _gain(row), row.images or 0
    costs = _ratio(row, source, "ms_p50"), _ratio(row, source, "peak_mib")
    if gain.low == gain.high == 0:
        return Judged(row, "same", *costs)
    if p < ALPHA:
        return Judged(row, "gains" if gain.value > 0 else "loses", *costs)
    shown = max(abs(gain.value), LEAST)
    needed = max(images_needed(shown, deviation_of(gain, images)), images + 1)
    return Judged(row, "open", *costs, needed, shown)


def _ratio(row: Row, source: Row | None, name: str) -> float | None:
    """Return a cost over the source model's, where both were measured on one machine."""
    if source is None or row.machine != source.machine:
        return None
    own, base = getattr(row, name), getattr(source, name)
    return own / base if own is not None and base else None


def _sentences(judged: Sequence[Judged]) -> Iterator[str]:
    gaining = [one for one in judged if one.outcome == "gains"]
    open_ = [one for one in judged if one.outcome == "open"]
    if gaining:
        best = gaining[0]
        yield f"{_named(best)} gains {_points(best.row)}{_cost(best)}."
        cheaper = [one for one in gaining[1:] if one.times and best.times and one.times < best.times / 1.2]
        if cheaper:
            least = min(cheaper, key=lambda one: one.times or 0.0)
            yield f"{_named(least)} gains {_points(least.row)}{_cost(least)}."
    elif open_:
        best = open_[0]
        certain = " for certain" if (best.row.gain or 0.0) > 0 else ""
        yield f"No method gains{certain}; {_named(best)} has {_points(best.row)}{_cost(best)}."
    elif judged and all(one.outcome == "same" for one in judged):
        yield f"{_listed(judged)} predict{'s' if len(judged) == 1 else ''} as the source model does."
    elif judged:
        yield f"No method gains; the best, {_named(judged[0])}, has {_points(judged[0].row)}."
    losing = [one for one in judged if one.outcome == "loses"]
    if losing and (gaining or open_):
        yield f"{_listed(losing)} {'loses' if len(losing) == 1 else 'lose'} against the source model."
    if open_:
        yield _too_few(open_)


def _too_few(judged: Sequence[Judged]) -> str:
    """Return the sentence on methods about which the images do not decide."""
    first = judged[0]
    images, needed, shown = first.row.images or 0, first.needed or 0, first.shown or 0.0
    whose = f", as {_named(first)} has" if len(judged) > 1 else ""
    return (
        f"{images:,} images are too few to judge {_listed(judged)}; about {_rounded(needed):,} would show a difference "
        f"of {_number(shown)}{whose}."
    )


def _rounded(count: int) -> int:
    """Return a count with two significant digits, rounded up: a power calculation is no more exact than that."""
    step = int(10 ** max(len(str(count)) - 2, 0))
    return -(-count // step) * step


def _named(one: Judged) -> str:
    row = one.row
    return f"{row.method} ({row.variant.replace(',', ', ')})" if row.variant else row.method


def _listed(judged: Sequence[Judged]) -> str:
    names = [_named(one) for one in judged]
    if len(names) > NAMED:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _points(row: Row) -> str:
    gain = _gain(row)
    return f"{100 * gain.value:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"


def _number(fraction: float) -> str:
    points = f"{100 * fraction:.1f}"
    return "1 point" if points == "1.0" else f"{points} points"


def _cost(one: Judged) -> str:
    """Return what a method costs, as a phrase that follows its gain."""
    times = [
        f"{ratio:.1f} times the {what}"
        for ratio, what in ((one.times, "time"), (one.memory, "memory"))
        if ratio is not None
    ]
    noisy = " (measured on a busy machine)" if one.row.noisy and times else ""
    batch = f", in batches of {one.row.batch_size}" if one.row.sees == "batch" else ""
    return f" at {' and '.join(times)} of the source model{noisy}{batch}" if times else batch
