# SPDX-License-Identifier: Apache-2.0
"""Look over the files of a dataset without decoding them, and say what is wrong and how to fix it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tta_bench.data.catalogue.files import Files
from tta_bench.data.dataset import Dataset, Shift
from tta_bench.data.layouts.base import Survey
from tta_bench.data.layouts.opening import find, missing
from tta_bench.errors import BadInputError

SHOWN = 3


class Finding(NamedTuple):
    """The state of one shift on disk.

    Attributes:
        shift: Which one.
        root: The dataset's folder, None if its files are not there.
        survey: What it holds.
        expected: How many images it should hold, 0 if that is not known.
        problems: Sentences that say what is wrong and how to fix it.
        notes: Sentences about what is odd but harms nothing.
    """

    shift: Shift
    root: Path | None
    survey: Survey
    expected: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check(dataset: Dataset, files: Files, severities: tuple[int, ...] = (1, 2, 3, 4, 5)) -> Iterator[Finding]:
    """Yield what is found of every shift of a dataset, or of the clean images where all others are made from them.

    Args:
        dataset: The dataset.
        files: Its files.
        severities: Those that are looked at.
    """
    every = ("all",) if dataset.corruptions else ()
    shifts = (Shift(dataset.name),) if files.generates else dataset.shifts(every, severities)
    for shift in shifts:
        yield _check(files, shift, len(dataset.class_names))


def _check(files: Files, shift: Shift, classes: int) -> Finding:
    root, expected = find(files, shift), files.count(shift)
    if root is None:
        return Finding(shift, None, Survey(0, 0), expected, (str(missing(files, shift)),), ())
    try:
        survey = files.layout.survey(root, shift)
    except BadInputError as error:
        return Finding(shift, root, Survey(0, 0), expected, (str(error),), ())
    return Finding(
        shift,
        root,
        survey,
        expected,
        tuple(_problems(files, survey, expected, classes)),
        tuple(_notes(survey)),
    )


def _problems(files: Files, survey: Survey, expected: int, classes: int) -> Iterator[str]:
    again = f"unpack the archive again, or see `tta-bench data prepare {files.name}`"
    if survey.missing:
        noun = "class folders" if survey.classes < classes else "images"
        yield f"{len(survey.missing)} {noun} are missing ({_some(survey.missing)}); {again}"
    elif survey.classes < classes:
        yield f"{classes - survey.classes} of {classes} classes have no image; {again}"
    if expected and survey.images < expected and not survey.missing:
        yield f"{expected - survey.images} of {expected} images are missing; {again}"
    if survey.broken:
        yield (
            f"{len(survey.broken)} links to images lead nowhere ({_some(survey.broken)}); restore what they lead to or "
            "remove them"
        )
    if expected and survey.images > expected:
        yield (
            f"{survey.images - expected} images are there beyond the {expected} of the dataset; remove what was "
            "added, or use it as folder:PATH"
        )


def _notes(survey: Survey) -> Iterator[str]:
    if survey.unknown:
        yield f"{len(survey.unknown)} folders are no class of this dataset and are not read ({_some(survey.unknown)})"
    if survey.stray:
        yield f"{len(survey.stray)} files are not read ({_some(survey.stray)})"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
