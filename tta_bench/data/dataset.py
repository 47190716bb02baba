# SPDX-License-Identifier: Apache-2.0
"""A dataset as a declaration of facts over a reader; no torch, so that listing datasets is quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tta_bench import registry
from tta_bench.errors import BadInputError, PluginError, UnknownNameError
from tta_bench.prompts import DATASET, find_prompts
from tta_bench.spec import Shift as Shift
from tta_bench.spec import parse_severities
from tta_bench.spec.ranges import WORST

if TYPE_CHECKING:
    from tta_bench.data.images.source import ImageSource

FOLDER = "folder"
"""The family that reads paths."""
PATH_MARKS = ("/", "\\")


class OpenRequest(NamedTuple):
    """A request to a reader to open one shift.

    Attributes:
        shift: Which distribution.
        seed: Of everything random in the data, e.g. corruption noise; the data seed of a run.
        options: The data options of a run.
    """

    shift: Shift
    seed: int = 0
    options: dict[str, Any] = {}


@dataclass(frozen=True)
class Dataset:
    """Facts about one dataset, and how to open its shifts.

    Attributes:
        name: On the command line.
        title: One line for lists.
        class_names: In label order, as they enter prompts.
        open: Returns the images of one shift.
        corruptions: Names, in the order of the literature; empty: the dataset is one shift.
        default_corruptions: Those that run when none is named; empty: all.
        templates: Prompt templates with one ``{}`` each.
        class_indices: Which outputs of a model trained on the parent label set stand for the classes; several
            for one class in parentheses.
        class_folders: What the classes are called on disk, where a model's outputs are to be matched with them; empty:
            its outputs are the classes, or `class_indices` says which.
        graded: Whether `corruptions` have severities; domains and variants have none.
        prompt_sets: Further prompt templates of the literature, by name.
        default_subset: Images per shift that run by default.
        default_batch: Images per step by default.
        source_split: Opens the labelled source images, where methods may ask for them.
        classifier: Source model of methods without a text side where none is named; empty: one must be named.
        demonstration: Whether tables must say that the data only demonstrate.
        licence: Of the data.
        citation: Where to cite it from.
        homepage: Where it comes from.
        notes: What a reader of its tables must know.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    open: Callable[[OpenRequest], ImageSource]
    corruptions: tuple[str, ...] = ()
    default_corruptions: tuple[str, ...] = ()
    templates: tuple[str, ...] = ("a photo of a {}.",)
    class_indices: tuple[int | tuple[int, ...], ...] | None = None
    class_folders: tuple[str, ...] = ()
    graded: bool = True
    prompt_sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default_subset: str = "full"
    default_batch: int = 64
    source_split: Callable[[], ImageSource] | None = None
    classifier: str = ""
    demonstration: bool = False
    licence: str = ""
    citation: str = ""
    homepage: str = ""
    notes: str = ""

    def shifts(self, corruptions: Sequence[str] = (), severities: Sequence[int] = (5,)) -> tuple[Shift, ...]:
        """Return the shifts that are meant, in the literature's order.

        Raises:
            UnknownNameError: For a corruption that the dataset does not have.
            BadInputError: If corruptions are asked of a dataset that has none.
        """
        if not self.corruptions:
            if corruptions and tuple(corruptions) != ("all",):
                raise BadInputError(
                    f"dataset {self.name!r} has no corruptions, got {', '.join(corruptions)}; leave them out"
                )
            return (Shift(self.name),)
        if not corruptions:
            chosen: Sequence[str] = self.default_corruptions or self.corruptions
        else:
            chosen = self.corruptions if "all" in corruptions else self._matching(corruptions)
        for name in chosen:
            if name not in self.corruptions:
                raise UnknownNameError("corruption" if self.graded else "domain", name, self.corruptions)
        ordered = [name for name in self.corruptions if name in chosen]
        if not self.graded:
            return tuple(Shift(self.name, name) for name in ordered)
        return tuple(Shift(self.name, name, severity) for severity in severities for name in ordered)

    def _matching(self, corruptions: Sequence[str]) -> list[str]:
        """Return corruptions in which wildcards stand for what they match; ``*`` alone for those that are usual."""
        found: list[str] = []
        for one in corruptions:
            known = self.default_corruptions or self.corruptions if one == "*" else self.corruptions
            matched = [name for name in known if fnmatchcase(name, one)]
            found += matched or [one]
        return found

    def prompted(self, name: str) -> Dataset:
        """Return the dataset with other prompt templates.

        Args:
            name: A set of the dataset, a named set, or a text file; see `tta_bench.prompts.find_prompts`.

        Raises:
            UnknownNameError: If there is no set of that name.
        """
        own = {DATASET: self.templates, **self.prompt_sets}
        return replace(self, templates=find_prompts(name, own).templates)


def find_dataset(token: str) -> tuple[Dataset, tuple[str, ...], tuple[int, ...]]:
    """Return the dataset that a command-line name means, with the corruptions and severities written in it.

    Args:
        token: ``name``, ``name:corruption`` or ``name:corruption:severity``. The corruption may be a wildcard, the
            severity ``*`` or like ``1-5`` or ``1,3``. A family such as ``folder`` reads the rest itself. A path such as
            ``./photos`` or ``photos/labels.csv`` is short for ``folder:PATH``.
    """
    token = f"{FOLDER}:{token}" if is_path(token) else token
    name, _, rest = token.partition(":")
    known = registry.registered("datasets")
    if name not in known:
        hint = f"`tta-bench list datasets` shows all, and a folder of images is written ./{name}"
        raise UnknownNameError("dataset", name, known, hint)
    found = registry.load("datasets", name)
    if callable(found) and not isinstance(found, Dataset):
        found, rest = found(rest)
    if not isinstance(found, Dataset):
        raise PluginError(
            f"dataset {name!r} must be a tta_bench.data.dataset.Dataset, got {type(found).__name__}"
        )
    corruption, _, severity = rest.partition(":")
    return found, (corruption,) if corruption else (), _severities(token, severity)


def is_path(token: str) -> bool:
    """Return whether the name of a dataset is a path: it looks like one, or leads somewhere and names nothing else."""
    name = token.partition(":")[0]
    if name in registry.registered("datasets"):
        return False
    written = any(mark in token for mark in PATH_MARKS) or token.startswith((".", "~"))
    return written or name.lower().endswith(".csv") or Path(name).exists()


def _severities(token: str, text: str) -> tuple[int, ...]:
    if not text:
        return ()
    try:
        severities = parse_severities([f"1-{WORST}" if text == "*" else text])
    except BadInputError:
        severities = ()
    if not severities or severities[0] < 1:
        raise BadInputError(
            f"the severity in {token!r} must be 1 to {WORST}, or like 1-{WORST} or *, got {text!r}"
        )
    return severities
