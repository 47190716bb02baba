# SPDX-License-Identifier: Apache-2.0
"""``tta-bench describe`` for a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from tta_bench.data.dataset import Dataset

_NAMES_SHOWN = 20


def describe_dataset(console: Console, name: str) -> None:
    """Print a dataset's classes, shifts, defaults, origin and licence."""
    from rich.table import Table

    from tta_bench.data.dataset import find_dataset

    dataset = find_dataset(name)[0]
    console.print(f"[bold cyan]{dataset.name}[/]  {dataset.title}")
    if dataset.notes:
        console.print(dataset.notes, markup=False)
    facts = Table(box=None, pad_edge=False, show_header=False)
    for heading, value in _facts(dataset):
        facts.add_row(f"[dim]{heading}[/]", value)
    console.print()
    console.print(facts)


def _facts(dataset: Dataset) -> list[tuple[str, str]]:
    usual = dataset.default_corruptions or dataset.corruptions
    more = [name for name in dataset.corruptions if name not in usual]
    rows = [
        ("classes", f"{len(dataset.class_names)}: {_listed(dataset.class_names)}"),
        ("corruptions" if dataset.graded else "domains", _listed(usual)),
        ("more of them", _listed(more)),
        ("severities", "1 to 5" if dataset.corruptions and dataset.graded else ""),
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


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
