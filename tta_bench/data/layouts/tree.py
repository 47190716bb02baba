# SPDX-License-Identifier: Apache-2.0
"""Image folders: one folder per class, and the label from the folder's name, never from its rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from tta_bench.data.dataset import Shift
from tta_bench.data.layouts.base import FileLayout, Index, Survey, distinct, file_hash
from tta_bench.data.layouts.locate import plain
from tta_bench.data.layouts.walk import Entry, broken_link, entries, images_below, is_image
from tta_bench.errors import BadInputError


@dataclass(frozen=True)
class ClassTree(FileLayout):
    """``<base>/<class folder>/<image>``.

    Attributes:
        classes: Folder names in label order.
        bases: Where the class folders may be below the dataset's folder; ``{corruption}``, ``{severity}`` and
            ``{group}`` stand for the shift's. The first is the official one.
        groups: Archive that each corruption was distributed in, where trees keep it as a folder.
        also: Further folder names, each with the class that its images belong to.
        spelled: Folder names that the shifts' names stand for, where they differ.
        subset: Whether the official tree holds folders of other classes too.
        nested: Whether images may lie deeper inside a class folder.
        prefixed: Whether the shift is part of an image's id: its images are other ones than those of the next.
    """

    classes: tuple[str, ...]
    bases: tuple[str, ...] = (".",)
    groups: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, str] = field(default_factory=dict)
    spelled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    subset: bool = False
    nested: bool = False
    prefixed: bool = False

    @cached_property
    def labels(self) -> dict[str, int]:
        """The label of each folder name, as it is spelled."""
        exact = {name: label for label, name in enumerate(self.classes)}
        return exact | {name: exact[meant] for name, meant in self.also.items()}

    @cached_property
    def variants(self) -> dict[str, int]:
        """The label of each folder name without case and separators; empty where that would mix two classes."""
        return {plain(name): label for name, label in self.labels.items()} if distinct(self.classes) else {}

    def label(self, folder: str) -> int | None:
        """Return the label of a folder, None if it is no class."""
        found = self.labels.get(folder)
        return found if found is not None else self.variants.get(plain(folder))

    def expects(self, shift: Shift) -> str:
        """Return the official path of the class folders."""
        return self._paths(shift)[0]

    def present(self, root: Path, shift: Shift) -> bool:
        """Return whether some folder there is a class."""
        return self.base(root, shift) is not None

    def base(self, root: Path, shift: Shift) -> Path | None:
        """Return the folder that holds class folders, None if there is none."""
        for path in self._paths(shift):
            if any(self.label(entry.name) is not None for entry in _folders(root / path, broken=True)):
                return root / path
        return None

    def index(self, root: Path, shift: Shift) -> Index:
        """Return the images by class and file name.

        Raises:
            BadInputError: If the class folders hold no image, or two folders stand for one class.
        """
        base = self.base(root, shift)
        assert base is not None
        index = Index(base, [], [], [])
        for label, entry in self._class_folders(base):
            name = self.classes[label] if entry.name not in self.also else entry.name
            for file in images_below(entry.path, self.nested):
                index.files.append(f"{entry.name}/{file}")
                index.ids.append(f"{shift.corruption}/{name}/{file}" if self.prefixed else f"{name}/{file}")
                index.labels.append(label)
        if not index.files:
            raise BadInputError(
                f"{base} has class folders but no images in them; put the images into their class folders, or check "
                "the path"
            )
        return index

    def survey(self, root: Path, shift: Shift) -> Survey:
        """Return what the tree holds, by listing folders only."""
        base = self.base(root, shift)
        assert base is not None
        counts = {label: 0 for label in range(len(self.classes))}
        for label, entry in self._class_folders(base):
            counts[label] += len(images_below(entry.path, self.nested))
        known = [entry.name for entry in _folders(base) if self.label(entry.name) is not None]
        unknown = sorted(
            entry.name
            for entry in _folders(base)
            if self.label(entry.name) is None and not entry.name.startswith(".")
        )
        stray = [entry.name for entry in entries(base) if entry.file]
        stray += [f"{name}/{file}" for name in sorted(known) for file in _strays(base / name)]
        files = self.index(root, shift).files if sum(counts.values()) else []
        broken = [file for file in files if not (base / file).is_file()]
        first = next((file for file in files if (base / file).is_file()), "")
        return Survey(
            sum(counts.values()) - len(broken),
            sum(count > 0 for count in counts.values()),
            tuple(self.classes[label] for label, count in counts.items() if not count),
            () if self.subset else tuple(unknown),
            tuple(stray),
            tuple(broken),
            file_hash(base / first) if first else "",
        )

    def _class_folders(self, base: Path) -> list[tuple[int, Entry]]:
        for entry in entries(base):
            if entry.broken and self.label(entry.name) is not None:
                raise broken_link(entry)
        found = [(self.label(entry.name), entry) for entry in _folders(base)]
        known = sorted(
            ((label, entry) for label, entry in found if label is not None), key=lambda x: (x[0], x[1].name)
        )
        for (label, entry), (after, other) in pairwise(known):
            if label == after and not {entry.name, other.name} & set(self.also):
                raise BadInputError(
                    f"{base} holds {entry.name!r} and {other.name!r}, which are both the class "
                    f"{self.classes[label]!r}; keep one of them"
                )
        return known

    def _paths(self, shift: Shift) -> list[str]:
        spellings = self.spelled.get(shift.corruption, (shift.corruption,))
        return [
            path.format(
                corruption=spelling, severity=shift.severity, group=self.groups.get(shift.corruption, "")
            )
            for path in self.bases
            for spelling in spellings
        ]


def _folders(path: Path, broken: bool = False) -> list[Entry]:
    """Return the folders in a folder, and links that lead nowhere where these are asked for too."""
    return [e for e in entries(path) if e.folder or (broken and e.broken)] if path.is_dir() else []


def _strays(folder: Path) -> list[str]:
    return [entry.name for entry in entries(folder) if entry.file and not is_image(entry.name)]
