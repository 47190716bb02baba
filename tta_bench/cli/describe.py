# SPDX-License-Identifier: Apache-2.0
"""``tta-bench describe``: the card of a method and its hyper-parameters."""

from __future__ import annotations

from typing import Annotated

import typer


def describe(method: Annotated[str, typer.Argument(help="Name of a method.")]) -> None:
    """Show what a method does, what it needs and promises, its hyper-parameters and presets."""
    import dataclasses
    import inspect

    from rich.table import Table

    from tta_bench.hyperparameters import create_method
    from tta_bench.reports.text import report_console

    made = create_method(method)
    console, card = report_console(), made.card
    console.print(f"[bold cyan]{method}[/]  {card.title}")
    console.print(inspect.cleandoc(inspect.getdoc(type(made)) or ""), markup=False)
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
        table.add_column("type", style="dim", overflow="fold")
        for field in fields:
            table.add_row(field.name, repr(getattr(made, field.name)), str(field.type))
        console.print(table)
    for name, values in made.presets.items():
        listed = ", ".join(f"{key}={value}" for key, value in values.items()) or "the defaults"
        console.print(f"preset [cyan]{name}[/]: {listed}")


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
