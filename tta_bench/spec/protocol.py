# SPDX-License-Identifier: Apache-2.0
"""The protocol card: the facts that decide what a number means, each declared once with its scope."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tta_bench.spec.digest import canonical, digest
from tta_bench.spec.plain import to_plain

Scope = Literal["table", "shift", "seed", "column"]
"""Among which rows a fact must agree: all of a table, those on the same stream, those of the same stream and seed, or
none, because a column shows it."""
MASK = tuple[int | tuple[int, ...], ...]
INCOMPLETE = ", incomplete: "
"""The text of an origin before the number of its images that are there."""
ORIGINS = "; "
"""Between the origins of several shifts of one stream."""


class Fact(NamedTuple):
    """The declaration of one fact.

    Attributes:
        name: Of the fact.
        scope: Among which rows it must agree.
        explanation: One sentence on what it is.
    """

    name: str
    scope: Scope
    explanation: str


def _fact(scope: Scope, explanation: str, default: Any = dataclasses.MISSING) -> Any:
    return field(default=default, metadata={"scope": scope, "explanation": explanation})


@dataclass(frozen=True)
class Protocol:
    """Everything besides method and hyper-parameters that a reader of a number must know."""

    class_list: str = _fact("table", "Hash of the class names in label order.")
    label_mask: MASK | None = _fact("table", "Outputs of the model that stand for the classes; null: all.")
    precision: str = _fact("table", "Floating type of model and images.")
    device: str = _fact("table", "Kind of device that computed the predictions.")
    scenario: str = _fact("table", "How shifts and images follow one another in the stream.")
    severity: tuple[int, ...] = _fact("shift", "Severities of the corruptions; empty for natural shifts.")
    subset: str = _fact("shift", "Which images of each shift are used.")
    images_used: int = _fact("shift", "Images in the stream.")
    images_available: int = _fact("shift", "Images that the shifts of the stream have.")
    data_hash: str = _fact("shift", "Hash of the pixels and labels of the shifts.")
    data_seed: int = _fact("shift", "Seed of the corruptions' random numbers.")
    origin: str = _fact("shift", "Where the corrupted images come from.")
    order_hash: str = _fact("seed", "Hash of the image ids in the order of the stream.")
    model: str = _fact("column", "Name of the source model.")
    weights: str = _fact("column", "SHA-256 of the model's weights, and of its reward model's behind a plus.")
    preprocessing: str = _fact("column", "Resize and crop of the model.")
    normalisation: str = _fact("column", "Mean and deviation per channel inside the model.")
    reset: str = _fact("column", "When the method forgets.")
    batch_size: int = _fact("column", "Images per step.")
    prompts: str = _fact("column", "Hash of the sentences that the text side encodes; empty without one.")
    views: str = _fact("column", "How views of an image are made; empty without views.")
    source_data: str = _fact("column", "Data of the source domain that the method is given.")
    source_split: str = _fact("column", "Hash of these data; empty without any.")
    hyperparameters_chosen: str = _fact("column", "How the hyper-parameters were chosen.")
    seed: int = _fact("column", "Seed of order, draws and random weights.")
    arrangement: str = _fact("shift", "What the first N images are; empty unless the subset is first-N.", "")

    def of_scope(self, *scopes: Scope) -> dict[str, Any]:
        """Return the facts of some scopes by name, as plain values."""
        return {one.name: to_plain(getattr(self, one.name)) for one in FACTS if one.scope in scopes}

    @property
    def comparable(self) -> dict[str, Any]:
        """Return the facts that must agree between rows that are compared."""
        return self.of_scope("table", "shift", "seed")

    @property
    def origins(self) -> tuple[str, ...]:
        """Return each way in which images of the stream came about, without how many of them are missing."""
        return tuple(dict.fromkeys(one.partition(INCOMPLETE)[0] for one in self.origin.split(ORIGINS)))

    @property
    def columns(self) -> dict[str, Any]:
        """Return the facts that may differ between rows and are shown."""
        return self.of_scope("column")

    @property
    def hash(self) -> str:
        """Return the hash of the whole card."""
        return digest(to_plain(self), 16)


def _declared() -> Iterator[Fact]:
    for one in dataclasses.fields(Protocol):
        yield Fact(one.name, one.metadata["scope"], one.metadata["explanation"])


FACTS: tuple[Fact, ...] = tuple(_declared())
"""The declarations of all facts, in the order of the card."""


def fact_text(value: Any) -> str:
    """Return the value of a fact as messages and comparisons show it."""
    return value if isinstance(value, str) else canonical(value)
