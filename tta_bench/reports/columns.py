# SPDX-License-Identifier: Apache-2.0
"""The columns of a leaderboard, each declared once: row, CSV file, terminal and documentation follow from here.

A new column is one line in `Row` and its value in `tta_bench.reports.leaderboard` or `tta_bench.reports.summary`.
``python -m tta_bench.reports.columns docs/leaderboard.md`` writes the table of the documentation.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tta_bench.errors import BadInputError
from tta_bench.spec.whole import write_whole

Kind = Literal["text", "count", "fraction", "gain", "ms", "mib", "flag"]
SOURCE = "source"
"""Name of the method that does not adapt; its row, or one that equals it, leads its block."""
BEGIN, END = "<!-- columns: begin -->", "<!-- columns: end -->"


class KindFacts(NamedTuple):
    """Facts that all columns of a kind share.

    Attributes:
        unit: Of the values in a file.
        low: Least value.
        high: Largest value.
        digits: Digits after the point; None: no fraction.
        empty: Value where there is none.
    """

    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    digits: int | None = None
    empty: str | bool | None = None


KINDS: dict[Kind, KindFacts] = {
    "text": KindFacts(empty=""),
    "count": KindFacts("count", low=1),
    "fraction": KindFacts("fraction", 0.0, 1.0, digits=6),
    "gain": KindFacts("fraction", -1.0, 1.0, digits=6),
    "ms": KindFacts("ms per image", low=0.0, digits=4),
    "mib": KindFacts("MiB", low=0.0, digits=3),
    "flag": KindFacts("true, false", empty=False),
}


class Shown(NamedTuple):
    """The place of a column in the terminal's table.

    Attributes:
        title: Its heading.
        rank: The highest is left out first where the width is short; 0 stays.
        wraps: Width at which a name wraps where its natural width does not fit; 0: a number, never wrapped.
        optional: Whether the column is left out where no row has a value.
    """

    title: str
    rank: int = 0
    wraps: int = 0
    optional: bool = False


class Column(NamedTuple):
    """The declaration of one column.

    Attributes:
        name: In the file and of the attribute of `Row`.
        kind: What it holds.
        help: One or two sentences on what it means, as the documentation prints them.
        unit: That of the kind, unless another is declared.
        since: First version of the file that has it.
        required: Whether it is never empty.
        choices: The only values; empty: any.
        shown: Its place in the terminal's table; None: in the file alone.
    """

    name: str
    kind: Kind
    help: str
    unit: str
    since: int
    required: bool
    choices: tuple[str, ...]
    shown: Shown | None

    @property
    def digits(self) -> int | None:
        """Digits after the point."""
        return KINDS[self.kind].digits


def _column(
    kind: Kind,
    help_: str,
    *,
    unit: str = "",
    since: int = 1,
    required: bool = False,
    choices: tuple[str, ...] = (),
    shown: Shown | None = None,
) -> Any:
    """Declare a column of `Row`."""
    facts = (kind, help_, unit or KINDS[kind].unit, since, required, choices, shown)
    return field(default=KINDS[kind].empty, metadata={"column": facts})


_LOW, _HIGH = "Lower end of its 95% interval.", "Upper end of its 95% interval."
_NAME = 24


@dataclass(frozen=True)
class Row:
    """Results of one method variant on one model and dataset under one protocol.

    Accuracies are fractions in [0, 1] and gains their differences; ``*_low`` and ``*_high`` are the ends of
    95% intervals.
    """

    method: str = _column("text", "Name of the method.", required=True, shown=Shown("method", wraps=_NAME))
    variant: str = _column(
        "text",
        "Hyper-parameters that differ from the method's defaults, as `k=v,...`. `code=...` is added where one table "
        "holds two versions of the method's source.",
    )
    category: str = _column(
        "text",
        "What a prediction draws on besides the source model: its own image (`episodic`), what came before (`online`), "
        "or the other images of a batch (`transductive`).",
        since=2,
    )
    model: str = _column("text", "Source model.", required=True, shown=Shown("model", wraps=_NAME))
    dataset: str = _column("text", "Dataset.", required=True, shown=Shown("dataset", wraps=_NAME))
    shifts: str = _column(
        "text",
        "Shifts that the row averages over, joined by `;`, without the name of the dataset.",
        shown=Shown("shift", wraps=_NAME),
    )
    seeds: str = _column("text", "Seeds, joined by `;`.")
    images: int | None = _column(
        "count",
        "Distinct images. Each counts once, under however many shifts and seeds it appears.",
        shown=Shown("images", rank=7),
    )
    cells: int | None = _column(
        "count",
        "Cells (shifts times seeds) that the row is made from.",
        since=3,
        shown=Shown("cells", optional=True),
    )
    planned: int | None = _column(
        "count", "Cells that the plans of the run folders name for the row.", since=3
    )
    accuracy: float | None = _column(
        "fraction", "Mean over shifts of the accuracy under each.", shown=Shown("accuracy\n%")
    )
    accuracy_low: float | None = _column("fraction", "Lower end of its 95% interval; see below.")
    accuracy_high: float | None = _column("fraction", _HIGH)
    source_accuracy: float | None = _column(
        "fraction", "Accuracy of the row's own source model, unadapted, on the same images."
    )
    gain: float | None = _column(
        "gain",
        "`accuracy` minus `source_accuracy`, paired by image; 0 for the source model itself.",
        shown=Shown("vs source\npoints"),
    )
    gain_low: float | None = _column("gain", _LOW)
    gain_high: float | None = _column("gain", _HIGH)
    prompts_accuracy: float | None = _column(
        "fraction",
        "Accuracy of zero-shot classification of the same images with the class prompts that the method encodes, those "
        "of the model or its own; null without a text side.",
        since=3,
    )
    prompts_gain: float | None = _column(
        "gain",
        "`accuracy` minus `prompts_accuracy`, paired by image: what is left of a gain when prompts are the same.",
        since=3,
        shown=Shown("vs same prompts\npoints", rank=1, optional=True),
    )
    prompts_gain_low: float | None = _column("gain", _LOW, since=3)
    prompts_gain_high: float | None = _column("gain", _HIGH, since=3)
    teacher_accuracy: float | None = _column(
        "fraction",
        "Accuracy of the method's teacher on the same images; null without a teacher.",
        shown=Shown("teacher\n%", rank=4, optional=True),
    )
    teacher_gain: float | None = _column(
        "gain",
        "`accuracy` minus the accuracy of the method's teacher, paired by image; null without a teacher, or if all its "
        "predictions are the source model's.",
        shown=Shown("vs teacher\npoints", rank=1, optional=True),
    )
    teacher_gain_low: float | None = _column("gain", _LOW)
    teacher_gain_high: float | None = _column("gain", _HIGH)
    ece: float | None = _column(
        "fraction",
        "Expected calibration error over 15 equal bins of confidence; null if the confidences are no probabilities.",
    )
    ms_mean: float | None = _column(
        "ms",
        "Mean time of views, encoding, adapting and predicting. Time of a batch is shared by its images; warm-up rows "
        "are left out.",
    )
    ms_p50: float | None = _column("ms", "Median of the same.", shown=Shown("ms/image\np50@batch", rank=2))
    ms_p95: float | None = _column("ms", "95th percentile.", shown=Shown("ms/image\np95", rank=5))
    ms_p99: float | None = _column("ms", "99th percentile.")
    peak_mib: float | None = _column(
        "mib",
        "Highest probed peak of a step. What it counts depends on the device: allocated memory on CUDA and XPU, tensor "
        "memory on the CPU, nothing on MPS.",
        shown=Shown("peak\nMiB", rank=6),
    )
    init_ms: float | None = _column(
        "ms", "Mean over cells of the method's preparation before the stream.", unit="ms"
    )
    cached: bool = _column(
        "flag",
        "Features were read from the cache. The times of views and encoding are those that were recorded on this "
        "machine when the features were made.",
        since=3,
    )
    batch_size: int | None = _column(
        "count",
        "Images per step, as configured. The times above are latencies only where it is 1.",
        unit="images",
    )
    reset: str = _column(
        "text", "When the state is reset: `image`, `batch`, `shift` or `never`.", required=True
    )
    sees: str = _column(
        "text",
        "`image` if a prediction depends on its own image alone, else `batch`. A batch reveals the shift: do not "
        "rank the two kinds together.",
        choices=("image", "batch"),
        shown=Shown("sees", rank=3),
    )
    severity: str = _column("text", "Severities of the corruptions, joined by `;`; empty for natural shifts.")
    precision: str = _column("text", "Floating type of model and images.", required=True)
    device: str = _column("text", "`cpu`, `cuda`, `mps` or `xpu`.", required=True)
    machine: str = _column(
        "text",
        "What the times and the memory were measured on: device, threads and torch build. Compare costs only where it "
        "is the same. A row over several machines has no times and no memory.",
        since=2,
        shown=Shown("on", rank=2, optional=True),
    )
    noisy: bool = _column(
        "flag",
        "Other work kept the machine busy while some cell was timed, so that its times are too long: the computing "
        "thread waited for a processor more than 5% of the time, or, where that is not known, the load average was "
        "more than 1.25 for each processor; or the GPU was slowed by heat or power. `--remeasure` times again.",
        since=3,
    )
    weights: str = _column("text", "First 8 digits of the SHA-256 of the model's weights.")
    weights_file: str = _column(
        "text",
        "File that the weights were read from, if any; several joined by `;`. `model` then ends in their hash, so that "
        "it does not depend on where the file lies.",
        since=3,
    )
    preprocessing: str = _column("text", "Resize, crop and normalisation of the model.")
    prompt_set: str = _column(
        "text", "Name of the prompt templates; empty without a text side. Names are not compared.", since=2
    )
    prompts: str = _column(
        "text",
        "Hash of the sentences that were encoded for student, teacher and baseline; empty without a text side.",
    )
    source_data: str = _column("text", "Data of the source domain that the method was given, or `none`.")
    hyperparameters_chosen: str = _column(
        "text", "How the hyper-parameters were chosen: `published`, `held-out` or `tuned-on-test`."
    )
    origin: str = _column(
        "text",
        "Where the images come from: as distributed, or how they were generated, and how many are missing where a run "
        "allowed that; several joined by `;`.",
        since=3,
    )
    looks: int | None = _column(
        "count",
        "Settings that the row's sweep tried on the test labels; empty without a sweep. The more there are, the less "
        "the best of them says.",
        unit="settings",
        since=3,
        shown=Shown("looks at\nlabels", rank=4, optional=True),
    )
    protocol: str = _column("text", "First 8 digits of the hash of the comparable facts of the row's cells.")
    status: str = _column(
        "text",
        "`complete`, `incomplete` (fewer `cells` than `planned`: not to be ranked), `failed` (an error) or `collapsed` "
        "(scores that are not finite). The last two have no numbers.",
        required=True,
        choices=("complete", "incomplete", "failed", "collapsed"),
    )
    demonstration: bool = _column(
        "flag",
        "Made from PocketScenes or from random weights: a demonstration that says nothing about photographs.",
    )
    mixed: bool = _column(
        "flag",
        "The comparable facts of its table differ (`--allow-mixed`): such rows must not be ranked.",
    )


COLUMNS: tuple[Column, ...] = tuple(
    Column(one.name, *one.metadata["column"]) for one in dataclasses.fields(Row)
)
"""The declarations, in the order of the file."""
NAMES: tuple[str, ...] = tuple(column.name for column in COLUMNS)
VERSION = max(column.since for column in COLUMNS)
"""Version of the file that is written; raised whenever a column is added."""


def names_of(version: int) -> tuple[str, ...]:
    """Return the columns that a version of the file has."""
    return tuple(column.name for column in COLUMNS if column.since <= version)


def ascending() -> Iterator[tuple[str, ...]]:
    """Yield the columns whose values must not fall: a value within its interval, and the percentiles of a quantity."""
    for name in NAMES:
        if f"{name}_low" in NAMES:
            yield (f"{name}_low", name, f"{name}_high")
    percentiles: dict[str, list[str]] = {}
    for name in NAMES:
        if found := re.fullmatch(r"(.+)_p\d+", name):
            percentiles.setdefault(found[1], []).append(name)
    yield from (tuple(names) for names in percentiles.values())


def markdown() -> str:
    """Return the table of all columns for the documentation."""
    lines = ["| column | unit | meaning |", "|---|---|---|"]
    lines += [f"| `{one.name}` | {one.unit} | {one.help} |".replace("|  |", "| |") for one in COLUMNS]
    return "\n".join(lines) + "\n"


def documented(text: str) -> str:
    """Return a document with the table of all columns between its marks.

    Raises:
        BadInputError: If the marks are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise BadInputError(f"expected the lines {BEGIN!r} and {END!r}, got a document without them")
    return f"{before}{begin}\n{markdown()}{end}{after}"


def main(arguments: list[str]) -> None:
    """Write the table into the document that is given.

    Raises:
        BadInputError: If there is not exactly one argument, or the document has no place for the table.
    """
    if len(arguments) != 1:
        raise BadInputError(
            f"expected one document, got {len(arguments)} arguments; give docs/leaderboard.md"
        )
    path = Path(arguments[0])
    write_whole(path, documented(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BadInputError as error:
        sys.exit(str(error))
