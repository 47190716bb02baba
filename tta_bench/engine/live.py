# SPDX-License-Identifier: Apache-2.0
"""Objects of this process that stand behind names of cells: methods, models and datasets that were not named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tta_bench.data.dataset import Dataset
from tta_bench.method import Method
from tta_bench.models.source import SourceModel

Kind = Literal["method", "model", "dataset"]


class Entry(NamedTuple):
    """One object, the name that cells call it by, and the hash of what it holds."""

    name: str
    value: Any
    content: str


@dataclass
class Live:
    """The objects of one run, by kind and by the hash of their content."""

    entries: dict[tuple[Kind, str], Entry] = field(default_factory=dict)

    def add(self, kind: Kind, name: str, value: Any, content: str) -> str:
        """Keep an object and return the name that a request calls it by.

        Two objects of one name and other content are told apart by their content.
        """
        for (other, _), entry in list(self.entries.items()):
            if other == kind and entry.name == name and entry.content != content:
                name = f"{name}@{content[:8]}"
        self.entries[kind, content] = Entry(name, value, content)
        return name

    def has(self, kind: Kind, name: str) -> bool:
        """Return whether a name stands for an object."""
        return self._named(kind, name) is not None

    def methods(self, names: Iterable[str]) -> Iterator[tuple[str, Method]]:
        """Yield the methods among some names that are objects."""
        for name in dict.fromkeys(names):
            entry = self._named("method", name)
            if entry is not None:
                yield name, entry.value

    def dataset(self, name: str) -> Dataset | None:
        """Return the dataset that a name stands for, None if it is no object."""
        entry = self._named("dataset", name)
        return None if entry is None else entry.value

    def hashes(self, **names: str) -> dict[str, str]:
        """Return the content hash of each part of a cell that is an object, by ``method``, ``model``, ``dataset``."""
        found = {kind: self._named(kind, name) for kind, name in names.items()}  # type: ignore[arg-type]
        return {kind: entry.content for kind, entry in found.items() if entry is not None}

    def get(self, kind: Kind, content: str) -> Any:
        """Return an object by its content, None if this process does not have it."""
        entry = self.entries.get((kind, content))
        return None if entry is None else entry.value

    def _named(self, kind: Kind, name: str) -> Entry | None:
        return next((e for (k, _), e in self.entries.items() if k == kind and e.name == name), None)


ModelMaker = Callable[[Dataset, str, str], SourceModel]
"""Binds a model that is an object to a dataset's classes, given precision and kind of device."""
