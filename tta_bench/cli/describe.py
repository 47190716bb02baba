# SPDX-License-Identifier: Apache-2.0
"""``tta-bench describe``: the card of a method and its hyper-parameters, or the facts of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tta_bench.cli.completion import COMPLETE
from tta_bench.cli.plugin import Plugins, methods_of_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from tta_bench.method import Method


def describe(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of a method or a dataset; with --plugin by default the file's method.",
            autocompletion=COMPLETE["name"],
        ),
    ] = "",
    plugin: Plugins = None,
) -> None:
    """Show what a method does, needs and promises, its hyper-parameters and presets; or what a dataset is."""
    from tta_bench import registry
    from tta_bench.cli.describe_dataset import describe_dataset
    from tta_bench.data.dataset import is_path
    from tta_bench.errors import BadInputError, UnknownNameError
    from tta_bench.reports.text import report_console

    own = methods_of_files(plugin)
    methods, datasets = (registry.registered(group) for group in ("methods", "datasets"))
    if not (name or own):
        raise BadInputError(
            "describe needs the name of a method or a dataset; `tta-bench list methods` shows all"
        )
    for one in [name] if name else own:
        if one not in methods and one not in own and (one.partition(":")[0] in datasets or is_path(one)):
            describe_dataset(report_console(), one)
        elif one in methods or one in own:
            _describe_method(report_console(), one, own)
        else:
            known = [*methods, *own, *datasets]
            raise UnknownNameError(
                "method or dataset", one, known, "`tta-bench list methods` and `list datasets` show all"
            )


def _describe_method(console: Console, method: str, own: Mapping[str, type[Method]]) -> None:
    import dataclasses

    from rich.table import Table
    from rich.text import Text

    from tta_bench.hyperparameters import create_method, written
    from tta_bench.reports.method_text import read_docstring

    made = create_method(method, plugins=own)
    card = made.card
    console.print(Text.assemble((method, "bold cyan"), f"  {card.title}"))
    text = read_docstring(type(made))
    for paragraph in text.paragraphs():
        console.print(paragraph.replace("``", ""))
    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_column(style="dim")
    for name, value in _facts(method, made):
        facts.add_row(name, value)
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
            meaning = text.attributes.get(field.name, str(field.type)).replace("``", "")
            table.add_row(field.name, written(value), meaning)
        console.print(table)
    for name, values in made.presets.items():
        listed = ", ".join(f"{key}={written(value)}" for key, value in values.items())
        console.print(Text.assemble("preset ", (name, "cyan"), f": {listed or 'the defaults'}"))


def _facts(name: str, method: object) -> list[tuple[str, str]]:
    from tta_bench.engine.state_size import carried_state
    from tta_bench.method import Method
    from tta_bench.parity.status import sentence

    assert isinstance(method, Method)
    card = method.card
    per = "never" if card.reset == "never" else f"per {card.reset}"
    runs = "many images at once" if card.independent or card.vmappable else "one step at a time"
    return [
        ("paper", card.paper),
        ("category", card.category),
        ("updates", card.updates),
        ("needs", ", ".join(sorted(card.needs)) or "nothing but images"),
        *([("prompts", f"{card.prompts} (default)")] if "text" in card.needs else []),
        ("predicts", f"{card.predicts} the update, gives {card.output}"),
        ("reset", f"{per} (default)"),
        ("per-image episodes", runs),
        ("default model", card.model),
        ("carried state", carried_state(method)),
        ("precision", ", ".join(sorted(card.precision))),
        ("cost of a step", card.cost or "not counted"),
        ("reference licence", card.reference_licence or "not looked up"),
        ("parity", sentence(name)),
        ("golden vectors", card.parity or "none"),
        *([("notes", card.notes)] if card.notes else []),
    ]
