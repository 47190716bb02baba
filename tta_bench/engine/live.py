# SPDX-License-Identifier: Apache-2.0
"""Objects of this process that stand behind names of cells: methods, models and datasets that were not named."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from tta_bench import registry
from tta_bench.data.dataset import Dataset
from tta_bench.errors import PluginError
from tta_bench.hyperparameters import as_dict, check_method_class, source_hash
from tta_bench.method import Method
from tta_bench.models.own import OwnModel
from tta_bench.spec import digest
from tta_bench.spec.plain import to_plain

Kind = Literal["method", "model", "dataset"]


class Entry(NamedTuple):
    """One object.

    Attributes:
        name: What cells call it.
        value: The object.
        content: Hash of what it holds.
        portable: Whether any process can make it from the cell alone, as a registered method with its
            hyper-parameters; such a cell is not in-process.
    """

    name: str
    value: Any
    content: str
    portable: bool = False


@dataclass
class Live:
    """The objects of one run, by the tokens that its request calls them by."""

    entries: dict[tuple[Kind, str], Entry] = field(default_factory=dict)

    def add_method(self, method: Method) -> str:
        """Keep a method with its hyper-parameters, and return its token.

        Raises:
            PluginError: If its class cannot run, or has the name of a registered method that it is not.
        """
        cls = type(method)
        known = registry.registered("methods")
        place = f"{cls.__module__}:{cls.__qualname__}"
        registered = next((name for name, point in known.items() if point.value == place), None)
        name = registered or str(getattr(cls, "name", cls.__name__.lower()))
        check_method_class(name, cls)
        if registered is None and name in known:
            raise PluginError(
                f"method {name!r} of this process is also one of package {registry.owner(known[name])}; give it "
                "another `name`"
            )
        content = digest([place, source_hash(cls), to_plain(as_dict(method))], 16)
        return self._add(
            "method", f"{name}@{content[:8]}", Entry(name, method, content, registered is not None)
        )

    def add_model(self, model: OwnModel) -> str:
        """Keep a network, and return its token."""
        name = self._free("model", model.name, model.content)
        return self._add("model", name, Entry(name, model, model.content))

    def add_dataset(self, dataset: Dataset, content: str) -> str:
        """Keep a dataset with the hash of its content, and return its token, which is its name."""
        name = self._free("dataset", dataset.name, content)
        return self._add("dataset", name, Entry(name, replace(dataset, name=name), content))

    def _add(self, kind: Kind, token: str, entry: Entry) -> str:
        self.entries[kind, token] = entry
        return token

    def _free(self, kind: Kind, name: str, content: str) -> str:
        """Return the name, with its content behind it where another object or a registered one has it."""
        other = self.entries.get((kind, name))
        taken = other is not None and other.content != content
        known = registry.registered("models" if kind == "model" else "datasets")
        return f"{name}@{content[:8]}" if taken or name in known else name

    def find(self, kind: Kind, token: str) -> Entry | None:
        """Return the object that a token stands for, None if it stands for none."""
        return self.entries.get((kind, token))

    def get(self, kind: Kind, content: str) -> Any:
        """Return an object by its content, None if this process does not have it."""
        every = (e.value for (k, _), e in self.entries.items() if k == kind and e.content == content)
        return next(every, None)

    def hashes(self, **tokens: str) -> dict[str, str]:
        """Return the content of each part of a cell that no other process can make, by kind."""
        found = {kind: self.find(kind, token) for kind, token in tokens.items()}  # type: ignore[arg-type]
        return {kind: one.content for kind, one in found.items() if one is not None and not one.portable}
