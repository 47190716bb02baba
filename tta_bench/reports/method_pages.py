# SPDX-License-Identifier: Apache-2.0
"""One Markdown page per method of this package, and an index.

``python -m tta_bench.reports.method_pages docs/methods`` writes them.

Everything on a page comes from the method's docstring, fields, presets and card, and from the recorded status
of its golden vectors; so a page changes only where one of these does.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tta_bench import registry
from tta_bench.errors import BadInputError
from tta_bench.hyperparameters import written
from tta_bench.parity.status import label, sentence
from tta_bench.reports.citation import bibtex, reference
from tta_bench.reports.method_text import MethodText, read_docstring
from tta_bench.spec.whole import write_whole

if TYPE_CHECKING:
    from tta_bench.method import Card, Method

OWN = "tta_bench.adapters."
INDEX = "README.md"
SOURCE_DATA = {
    "source_images": "images of the source split, before the stream",
    "source_labels": "their labels",
    "source_replay": "a batch of source images at every step",
}
CATEGORIES = {
    "episodic": "episodic: each image by itself",
    "online": "online: what came before counts",
    "transductive": "transductive: the images of a batch together",
}
UPDATES = {
    "parameters": "parameters, by gradient",
    "state": "memories or statistics, without gradient",
    "inference": "nothing; the inference itself differs",
}
HEAD = """# Methods

Written by `python -m tta_bench.reports.method_pages docs/methods` from the methods themselves; do not edit.
`tta-bench describe METHOD` says the same on the command line.

**Cost** counts passes of one step over one batch: a forward pass through the source model (or a copy of it), and a
backward pass for every forward pass that is differentiated. **Source data** is what a method reads of the data that
the source model was trained on. **Parity** says how the method agrees with golden vectors of its published reference:
`exact` where every case meets the rule of its family, `close` where some are judged by a wider one or not replayed,
`card only` where there are no vectors.
"""


def write_pages(folder: Path) -> list[Path]:
    """Write the pages of all methods of this package and the index, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name, p in registry.registered("methods").items() if p.module.startswith(OWN)]
    methods: dict[str, Method] = {name: registry.load("methods", name)() for name in names}
    pages = {f"{name}.md": page(name, method) for name, method in methods.items()}
    pages[INDEX] = index(methods)
    for name, text in pages.items():
        write_whole(folder / name, text)
    return [folder / name for name in pages]


def index(methods: dict[str, Method]) -> str:
    """Return the index page of methods by name."""
    rows = [
        (
            f"[{name}]({name}.md)",
            read_docstring(type(method)).summary,
            method.card.cost,
            source_data(method.card),
            label(name),
        )
        for name, method in methods.items()
    ]
    return HEAD + "\n" + table(("method", "what it does", "cost", "source data", "parity"), rows)


def page(name: str, method: Method) -> str:
    """Return the page of one method."""
    text = read_docstring(type(method))
    parts = [f"# {name}\n", f"{text.summary}\n", *_citation_line(method.card)]
    parts += [*_sections(text), f"## At a glance\n\n{table(('', ''), _glance(name, method))}"]
    parts += [*_hyperparameters(method, text), *_presets(method)]
    if method.card.notes:
        parts.append(f"## Known pitfalls\n\n{method.card.notes}\n")
    if entry := bibtex(name, method.card):
        parts.append(f"## Citation\n\n```bibtex\n{entry}```\n")
    return "\n".join(parts)


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; a bar inside a cell is escaped."""
    lines = [list(heads)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def source_data(card: Card) -> str:
    """Return what a method reads of its source model's training data."""
    return ", ".join(text for need, text in SOURCE_DATA.items() if need in card.needs) or "none"


def _citation_line(card: Card) -> list[str]:
    line = reference(card)
    return [f"{line}\n"] if line else []


def _sections(text: MethodText) -> Iterator[str]:
    yield "## What it does\n\n" + "\n\n".join(_code(part) for part in text.body or (text.summary,)) + "\n"
    if equations := text.equations():
        yield "## Equations\n\n```\n" + "\n".join(equations) + "\n```\n"
    if text.source:
        yield f"## Source\n\n{_sentence(text.source)}\n"
    if text.differs:
        yield f"## What differs from the publication\n\n{_sentence(text.differs)}\n"


def _glance(name: str, method: Method) -> list[tuple[str, str]]:
    card, views = method.card, method.view_policy()
    needs = sorted(need for need in card.needs if need not in SOURCE_DATA)
    return [
        ("category", CATEGORIES[card.category]),
        ("updates", UPDATES[card.updates]),
        ("cost of a step", card.cost),
        ("source data", source_data(card)),
        ("needs", ", ".join(needs) or "images alone"),
        *([("prompts", f"`{card.prompts}`")] if "text" in card.needs else []),
        ("views", f"{views.count} ({views.kind})" if views else "none"),
        ("prediction", f"{card.predicts} the update, as {card.output}"),
        ("reset", "never" if card.reset == "never" else f"per {card.reset}"),
        ("default model", f"`{card.model}`"),
        (
            "several images in one call under `--reset image`",
            "yes" if card.independent or card.vmappable else "no",
        ),
        ("precision", ", ".join(sorted(card.precision))),
        ("licence of the authors' code", card.reference_licence or "not looked up"),
        ("parity", sentence(name)),
    ]


def _hyperparameters(method: Method, text: MethodText) -> list[str]:
    fields = dataclasses.fields(method)  # type: ignore[arg-type]
    if not fields:
        return ["## Hyper-parameters\n\nNone.\n"]
    rows = [
        (
            f"`{field.name}`",
            f"`{_value(getattr(method, field.name))}`",
            _code(text.attributes.get(field.name, "")),
        )
        for field in fields
    ]
    heading = "## Hyper-parameters\n\nSet one by `--set NAME=VALUE`.\n\n"
    return [heading + table(("name", "default", "what it is"), rows)]


def _presets(method: Method) -> list[str]:
    if not method.presets:
        return []
    rows = [
        (
            f"`{name}`",
            ", ".join(f"`{key}={_value(value)}`" for key, value in values.items()) or "the defaults",
        )
        for name, values in method.presets.items()
    ]
    return ["## Presets\n\nTake one by `--preset NAME`.\n\n" + table(("name", "sets"), rows)]


def _value(value: Any) -> str:
    return written(value) or '""'


def _sentence(text: str) -> str:
    return _code(text[:1].upper() + text[1:])


def _code(text: str) -> str:
    """Return docstring text with Markdown's own sign for code."""
    return text.replace("``", "`")


def main(arguments: list[str]) -> None:
    """Write the pages to the folder that is given.

    Raises:
        BadInputError: If there is not exactly one argument.
    """
    if len(arguments) != 1:
        raise BadInputError(
            f"expected one folder for the pages, got {len(arguments)} arguments; give docs/methods"
        )
    write_pages(Path(arguments[0]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BadInputError as error:
        sys.exit(str(error))
