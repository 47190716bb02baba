# SPDX-License-Identifier: Apache-2.0
"""Images that a text file lists: ``path label`` lines, split files in JSON, metadata tables, variant lists."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tta_bench.data.dataset import Shift
from tta_bench.data.layouts.base import (
    FileLayout,
    Index,
    Survey,
    first_of,
    inside,
    read_table,
    read_text,
    survey_of,
)
from tta_bench.data.layouts.locate import plain
from tta_bench.data.layouts.tree import ClassTree
from tta_bench.errors import BadInputError


@dataclass(frozen=True)
class ListedTree(FileLayout):
    """``path label`` lines per shift; where the list is missing, all images of the class folders.

    Attributes:
        tree: The class folders that the paths lead to.
        lists: Where the list may be below the dataset's folder; ``{corruption}`` stands for the shift's name. Several
            in a tuple are the parts of one list, which belong together.
        under: Folder, below the dataset's, that the paths are relative to.
    """

    tree: ClassTree
    lists: tuple[str | tuple[str, ...], ...]
    under: str = "."
    classes: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", self.tree.classes)

    def expects(self, shift: Shift) -> str:
        """Return the official path of the class folders."""
        return self.tree.expects(shift)

    def present(self, root: Path, shift: Shift) -> bool:
        """Return whether the list or the class folders are there."""
        return bool(self._lists(root, shift)) or self.tree.present(root, shift)

    def index(self, root: Path, shift: Shift) -> Index:
        """Return the listed images.

        Raises:
            BadInputError: If a line is no ``path label`` below the folder, or its label contradicts its folder.
        """
        parts = self._lists(root, shift)
        if not parts:
            return self.tree.index(root, shift)
        index = Index(root / self.under.format(corruption=shift.corruption), [], [], [])
        for path in parts:
            self._read(path, shift, index)
        return index

    def _read(self, path: Path, shift: Shift, index: Index) -> None:
        """Add the images of one list to an index."""
        for number, line in enumerate(read_text(path).splitlines(), 1):
            if line.strip():
                file, _, label = line.strip().rpartition(" ")
                self._check(path, number, file, label)
                index.files.append(inside(file, path))
                index.ids.append(file if self.under == "." else f"{shift.corruption}/{file}")
                index.labels.append(int(label))

    def survey(self, root: Path, shift: Shift) -> Survey:
        """Return what the list or the tree holds."""
        if not self._lists(root, shift):
            return self.tree.survey(root, shift)
        return survey_of(self.index(root, shift))

    def _lists(self, root: Path, shift: Shift) -> tuple[Path, ...]:
        """Return the files of the first list that is there, none if there is no list.

        Raises:
            BadInputError: If some parts of a list are there and others are missing.
        """
        for names in self.lists:
            parts = (names,) if isinstance(names, str) else names
            paths = tuple(root / part.format(corruption=shift.corruption) for part in parts)
            absent = [path for path in paths if not path.is_file()]
            if absent and len(absent) < len(paths):
                raise BadInputError(
                    f"{root} holds one part of the list of {shift}, but {absent[0].name} is missing; put it beside the "
                    "other, as the dataset is both"
                )
            if not absent:
                return paths
        return ()

    def _check(self, path: Path, number: int, file: str, label: str) -> None:
        if not file or not label.isdecimal() or int(label) >= len(self.tree.classes):
            raise BadInputError(
                f"line {number} of {path} must be an image path and a label from 0 to "
                f"{len(self.tree.classes) - 1}, got {f'{file} {label}'.strip()!r}; fetch the list again"
            )
        folder = Path(file).parent.name
        meant = self.tree.label(folder)
        if meant is not None and meant != int(label):
            raise BadInputError(
                f"line {number} of {path} labels {file} as {label} ({self.tree.classes[int(label)]}), but its "
                f"folder is class {meant}; the list numbers the classes in another order, so use the official one"
            )


@dataclass(frozen=True)
class SplitFile(FileLayout):
    """A JSON file ``{"train": [[path, label, class], ...], "val": ..., "test": ...}`` next to the images.

    Attributes:
        classes: Class names in label order.
        file: Name of the split file.
        images: Where the images may be below the dataset's folder.
        split: Which split is read.
    """

    classes: tuple[str, ...]
    file: str
    images: tuple[str, ...]
    split: str = "test"

    def expects(self, shift: Shift) -> str:
        """Return the name of the split file."""
        return self.file

    def present(self, root: Path, shift: Shift) -> bool:
        """Return whether both the split file and the images are there."""
        return (root / self.file).is_file() and first_of(root, self.images) is not None

    def index(self, root: Path, shift: Shift) -> Index:
        """Return the images of the split.

        Raises:
            BadInputError: If the file is no such JSON, or numbers the classes in another order.
        """
        base = first_of(root, self.images)
        assert base is not None
        index = Index(base, [], [], [])
        for entry in self._entries(root / self.file):
            if not (isinstance(entry, list) and len(entry) == 3 and type(entry[1]) is int):
                raise BadInputError(
                    f"{root / self.file} must list [path, label, class name], got {entry!r}; fetch it again"
                )
            file, label, name = str(entry[0]).lstrip("/"), entry[1], str(entry[2])
            if label not in range(len(self.classes)) or plain(name) != plain(self.classes[label]):
                known = self.classes[label] if label in range(len(self.classes)) else "no class"
                raise BadInputError(
                    f"{root / self.file} gives {file} the label {label} and the name {name!r}, but class {label} is "
                    f"{known!r}; use the published split file"
                )
            index.files.append(inside(file, root / self.file))
            index.ids.append(file)
            index.labels.append(label)
        return index

    def survey(self, root: Path, shift: Shift) -> Survey:
        """Return how many of the listed images are there."""
        return survey_of(self.index(root, shift))

    def _entries(self, path: Path) -> list[Any]:
        try:
            content = json.loads(read_text(path))
        except (json.JSONDecodeError, RecursionError) as error:
            raise BadInputError(f"{path} must be a JSON file, but {error}; fetch it again") from error
        if not isinstance(content, dict) or not isinstance(content.get(self.split), list):
            raise BadInputError(
                f"{path} must have a list named {self.split!r}; fetch the published split file"
            )
        return list(content[self.split])


@dataclass(frozen=True)
class VariantLists(FileLayout):
    """FGVC-Aircraft: ``variants.txt`` in label order and ``images_variant_<split>.txt`` with ``id name`` lines."""

    classes: tuple[str, ...]
    bases: tuple[str, ...] = (".", "data")
    split: str = "test"

    def expects(self, shift: Shift) -> str:
        """Return the name of the list."""
        return f"images_variant_{self.split}.txt"

    def present(self, root: Path, shift: Shift) -> bool:
        """Return whether list and images are there."""
        return self._base(root, shift) is not None

    def index(self, root: Path, shift: Shift) -> Index:
        """Return the listed images.

        Raises:
            BadInputError: If a line names no known variant.
        """
        base = self._base(root, shift)
        assert base is not None
        labels = {name: label for label, name in enumerate(self.classes)}
        index = Index(base / "images", [], [], [])
        path = base / self.expects(shift)
        for number, line in enumerate(read_text(path).splitlines(), 1):
            image, _, variant = line.strip().partition(" ")
            if line.strip() and variant not in labels:
                raise BadInputError(
                    f"line {number} of {path} must be an image id and a variant such as 707-320, got {line!r}; "
                    "fetch the archive again"
                )
            if line.strip():
                index.files.append(inside(f"{image}.jpg", path))
                index.ids.append(f"{image}.jpg")
                index.labels.append(labels[variant])
        return index

    def survey(self, root: Path, shift: Shift) -> Survey:
        """Return how many of the listed images are there."""
        return survey_of(self.index(root, shift))

    def _base(self, root: Path, shift: Shift) -> Path | None:
        bases = (root / base for base in self.bases)
        return next(
            (b for b in bases if (b / self.expects(shift)).is_file() and (b / "images").is_dir()), None
        )


@dataclass(frozen=True)
class MetadataTable(FileLayout):
    """Waterbirds: ``metadata.csv`` with the columns ``img_filename``, ``y`` and ``split`` (0, 1, 2 = test)."""

    classes: tuple[str, ...]
    file: str = "metadata.csv"
    split: str = "2"

    def expects(self, shift: Shift) -> str:
        """Return the name of the table."""
        return self.file

    def present(self, root: Path, shift: Shift) -> bool:
        """Return whether the table is there."""
        return (root / self.file).is_file()

    def index(self, root: Path, shift: Shift) -> Index:
        """Return the images of the split.

        Raises:
            BadInputError: If a column is missing or a label is none of the classes.
        """
        index = Index(root, [], [], [])
        path = root / self.file
        for row in read_table(path, ("img_filename", "y", "split")):
            if row["split"] == self.split:
                if row["y"] not in map(str, range(len(self.classes))):
                    raise BadInputError(
                        f"{path} must have labels 0 to {len(self.classes) - 1} in column y, got {row['y']!r}; fetch "
                        "it again"
                    )
                index.files.append(inside(row["img_filename"], path))
                index.ids.append(row["img_filename"])
                index.labels.append(int(row["y"]))
        return index

    def survey(self, root: Path, shift: Shift) -> Survey:
        """Return how many of the listed images are there."""
        return survey_of(self.index(root, shift))
