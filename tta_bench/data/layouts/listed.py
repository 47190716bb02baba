# SPDX-License-Identifier: Apache-2.0
"""Images of the user's own that a CSV file lists with their labels: path,label and perhaps split."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tta_bench.data.dataset import Shift
from tta_bench.data.layouts.base import FileLayout, Index, Survey, read_table, survey_of
from tta_bench.data.layouts.walk import is_image
from tta_bench.errors import BadInputError, UnknownNameError

COLUMNS = ("path", "label")
SPLIT = "split"
USUAL = "test"
"""The split that is read where none is named."""


class Line(NamedTuple):
    """One image of a table: its line in the file, path and label."""

    number: int
    path: str
    label: str


@dataclass(frozen=True)
class Listed(FileLayout):
    """The images of one split of a table.

    Attributes:
        file: The table; paths in it are relative to its folder.
        split: The split; empty: the table has none.
        classes: Labels in order: by number where all are numbers, else by name.
        lines: The images.
    """

    file: Path
    split: str
    classes: tuple[str, ...]
    lines: tuple[Line, ...]

    def expects(self, shift: Shift) -> str:
        """Return the name of the file."""
        return self.file.name

    def present(self, root: Path, shift: Shift) -> bool:
        """Return whether the file is there."""
        return self.file.is_file()

    def index(self, root: Path, shift: Shift) -> Index:
        """Return the images in the order of the file."""
        labels = {name: label for label, name in enumerate(self.classes)}
        paths = [os.path.normpath(line.path) for line in self.lines]
        return Index(self.file.parent, paths, paths, [labels[line.label] for line in self.lines])

    def survey(self, root: Path, shift: Shift) -> Survey:
        """Return what the table lists, and which of it is missing."""
        return survey_of(self.index(root, shift))


def read_listed(file: Path, split: str = "") -> Listed:
    """Return one split of a CSV file with the columns path and label, and perhaps split.

    Args:
        file: The table.
        split: Which; empty: ``test`` where there are several.

    Raises:
        BadInputError: If the table is missing or is none, names no class or one alone, an image twice, or one that is
            not there.
        UnknownNameError: If it has no such split.
    """
    if not file.is_file():
        raise BadInputError(
            f"a CSV file with the columns path and label was expected, got {str(file)!r}, which is not there; check "
            "the path"
        )
    rows = read_table(file, COLUMNS)
    splits = list(dict.fromkeys(row.get(SPLIT, "").strip() for row in rows))
    chosen = _chosen(file, [one for one in splits if one], split)
    lines = tuple(_lines(file, rows, chosen))
    labels = {line.label for line in lines}
    if len(labels) < 2:
        raise BadInputError(
            f"{file} must have images of two classes at least{f' in split {chosen}' if chosen else ''}, got "
            f"{', '.join(labels) or 'none'}; complete it, or name another split as {file.name}:SPLIT"
        )
    by_number = all(label.isdecimal() for label in labels)
    return Listed(file, chosen, tuple(sorted(labels, key=int if by_number else str)), lines)


def _chosen(file: Path, splits: list[str], wanted: str) -> str:
    if wanted and wanted not in splits:
        raise UnknownNameError(f"split of {file}", wanted, splits, "the column split has them")
    if wanted or len(splits) < 2:
        return wanted or (splits[0] if splits else "")
    if USUAL not in splits:
        raise BadInputError(
            f"{file} has the splits {', '.join(splits)}; name one as folder:{file}:{splits[0]}"
        )
    return USUAL


def _lines(file: Path, rows: list[dict[str, str]], split: str) -> Iterator[Line]:
    """Yield the images of a split after a look at each.

    Raises:
        BadInputError: For the first that has no path or label, comes twice, or is not there.
    """
    seen: dict[str, int] = {}
    absent = []
    for number, row in enumerate(rows, 2):
        if split and row.get(SPLIT, "").strip() != split:
            continue
        line = Line(number, row["path"].strip(), row["label"].strip())
        if not line.path or not line.label:
            raise BadInputError(
                f"line {number} of {file} must have a path and a label, got {line.path!r} and {line.label!r}; complete "
                "it or take it out"
            )
        if not is_image(Path(line.path).name):
            raise BadInputError(
                f"line {number} of {file} must name an image of a format that is read, got {line.path!r}; convert it "
                "to PNG or JPEG, or take it out"
            )
        if (first := seen.setdefault(os.path.normpath(line.path), number)) != number:
            raise BadInputError(f"{file} names {line.path!r} in lines {first} and {number}; keep one of them")
        if not (file.parent / line.path).expanduser().is_file():
            absent.append(line)
        yield line
    if absent:
        raise BadInputError(
            f"{len(absent)} of {len(seen)} images in {file} are not there, {absent[0].path!r} in line "
            f"{absent[0].number} among them; paths are relative to {file.parent}"
        )
