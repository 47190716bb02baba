# SPDX-License-Identifier: Apache-2.0
"""``tta-bench describe``: the card of a method and its hyper-parameters."""

from __future__ import annotations

import inspect
from typing import Annotated

import typer


def describe(method: Annotated[str, typer.Argument(help="Name of a method.")]) -> None:
    """Show what a method does, what it needs and promises, its hyper-parameters and presets."""
    import dataclasses

    from rich.table import Table

    from tta_bench.hyperparameters import create_method
    from tta_bench.reports.text import report_console

    made = create_method(method)
    console, card = report_console(), made.card
    console.print(f"[bold cyan]{method}[/]  {card.title}")
    text, attributes = _documented(inspect.cleandoc(type(made).__doc__ or ""))
    for paragraph in text:
        console.print(paragraph, markup=False)
    facts = Table(box=None, pad_edge=False, show_header=False)
    for name, value in _facts(made):
        facts.add_row(f"[dim]{name}[/]", value)
    console.print()
    console.print(facts)
    fields = dataclasses.fields(made)  # type: ignore[arg-type]
    if fields:
        table = Table(
            title="\nhyper-parameters (--set NAME=VALUE)", title_justify="left", box=None, pad_edge=False
        )
        table.add_column("name", style="cyan", no_wrap=True)
        table.add_column("default", no_wrap=True)
        table.add_column("what it is", overflow="fold")
        for field in fields:
            value = getattr(made, field.name)
            table.add_row(field.name, str(value), attributes.get(field.name, str(field.type)))
        console.print(table)
    for name, values in made.presets.items():
        listed = ", ".join(f"{key}={value}" for key, value in values.items()) or "the defaults"
        console.print(f"preset [cyan]{name}[/]: {listed}")


def _documented(docstring: str) -> tuple[list[str], dict[str, str]]:
    """Return the paragraphs of a docstring, each as one line, and what it says of each attribute."""
    head, _, tail = docstring.partition("\nAttributes:\n")
    paragraphs = [" ".join(part.split()).replace("``", "") for part in head.split("\n\n")]
    split = [part.replace(" Differs: ", "\nDiffers: ", 1) for part in paragraphs if part]
    attributes: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(tail).splitlines():
        if line and not line[0].isspace():
            name, _, text = line.partition(": ")
            attributes[name] = text.strip()
        elif name and line.strip():
            attributes[name] += " " + line.strip()
    return split, {key: value.replace("``", "") for key, value in attributes.items()}


def _facts(method: object) -> list[tuple[str, str]]:
    from tta_bench.method import Method

    assert isinstance(method, Method)
    card = method.card
    per = "never" if card.reset == "never" else f"per {card.reset}"
    runs = "many images at once" if card.independent or card.vmappable else "one step at a time"
    return [
        ("paper", card.paper),
        ("needs", ", ".join(sorted(card.needs)) or "nothing but images"),
        ("predicts", f"{card.predicts} the update, gives {card.output}"),
        ("reset", f"{per} (default)"),
        ("per-image episodes", runs),
        ("default model", card.model),
        ("precision", ", ".join(sorted(card.precision))),
        ("golden vectors", card.parity or "none"),
        *([("notes", card.notes)] if card.notes else []),
    ]
