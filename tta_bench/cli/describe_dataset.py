# SPDX-License-Identifier: Apache-2.0
"""``tta-bench describe`` for a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tta_bench.spec import Shift

if TYPE_CHECKING:
    from rich.console import Console

    from tta_bench.data.catalogue.files import Files
    from tta_bench.data.dataset import Dataset

_NAMES_SHOWN = 20


def describe_dataset(console: Console, name: str) -> None:
    """Print a dataset's classes, shifts, defaults, origin and licence."""
    from rich.table import Table
    from rich.text import Text

    from tta_bench.data.catalogue.declare import files_of
    from tta_bench.data.dataset import find_dataset

    dataset = find_dataset(name)[0]
    console.print(Text.assemble((dataset.name, "bold cyan"), f"  {dataset.title}"))
    files = files_of(dataset)
    for note in (dataset.notes, *(files.notes if files else ())):
        if note:
            console.print(note, markup=False)
    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_column(style="dim")
    for heading, value in _facts(dataset, files):
        facts.add_row(heading, value)
    console.print()
    console.print(facts)


def _facts(dataset: Dataset, files: Files | None) -> list[tuple[str, str]]:
    usual = dataset.default_corruptions or dataset.corruptions
    more = [name for name in dataset.corruptions if name not in usual]
    rows = [
        ("classes", f"{len(dataset.class_names)}: {_listed(dataset.class_names)}"),
        ("corruptions" if dataset.graded else "domains", _listed(usual)),
        ("more of them", _listed(more)),
        ("severities", "1 to 5" if dataset.corruptions and dataset.graded else ""),
        ("images", _counted(files, usual) if files else ""),
        ("prompts", _listed(dataset.templates)),
        ("further prompts", ", ".join(dataset.prompt_sets)),
        ("subset", f"{dataset.default_subset} (default)"),
        ("batch", f"{dataset.default_batch} images (default)"),
        ("source images", "yes" if dataset.source_split else "none, so methods that need them cannot run"),
        ("default model", dataset.classifier),
        ("licence", dataset.licence),
        ("cite", dataset.citation),
        ("comes from", dataset.homepage),
    ]
    return [row for row in rows if row[1]]


def _counted(files: Files, shifts: tuple[str, ...]) -> str:
    """Return how many images each shift has, empty where that is not known."""
    counts = {name: files.count(Shift(files.name, name)) for name in shifts or ("",)}
    known = {name: count for name, count in counts.items() if count}
    if len(set(known.values())) == 1 and len(known) == len(counts):
        return f"{known.popitem()[1]:,}{' each' if len(counts) > 1 else ''}"
    return ", ".join(f"{name} {count:,}" for name, count in known.items())


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
