# SPDX-License-Identifier: Apache-2.0
"""Write rows of a leaderboard as the suffix of the file says: CSV, Markdown, JSON or Parquet."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from html import escape
from io import BytesIO
from pathlib import PurePosixPath

from tta_bench.errors import BadInputError, StoreError
from tta_bench.records.files import write_whole
from tta_bench.reports.columns import NAMES, Row
from tta_bench.reports.csv_file import write_csv
from tta_bench.reports.table import table_content
from tta_bench.spec.texts import masked, visible


def markdown(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table with what all share above it and the notes of the printed one below."""
    content = table_content(rows)
    lines = [content.shared, ""] if content.shared else []
    if content.titles:
        rules = ["---:" if number else "---" for number in content.numbers]
        lines += [_line(content.titles), _line(rules), *map(_line, content.cells), ""]
    return "\n".join([*lines, *(f"{note}  " for note in content.notes)]).rstrip() + "\n"


def html(rows: Sequence[Row]) -> str:
    """Return rows as the HTML of a table, with what all share above it and the notes of the printed one below."""
    content = table_content(rows)
    sides = ["right" if number else "left" for number in content.numbers]
    lines = [f"<p>{_escaped(content.shared)}</p>"] if content.shared else []
    if content.titles:
        body = (_html_row("td", cells, sides) for cells in content.cells)
        lines += ["<table>", _html_row("th", content.titles, sides), *body, "</table>"]
    return "\n".join([*lines, f"<p>{'<br>'.join(map(_escaped, content.notes))}</p>"])


def _html_row(kind: str, cells: Sequence[str], sides: Sequence[str]) -> str:
    inner = (
        f'<{kind} style="text-align: {side}">{_escaped(cell)}</{kind}>'
        for side, cell in zip(sides, cells, strict=True)
    )
    return f"<tr>{''.join(inner)}</tr>"


def _escaped(text: str) -> str:
    return escape(visible(masked(text)))


def _line(cells: Sequence[str]) -> str:
    shown = (visible(masked(cell)).replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(shown)} |"


def _json(rows: Sequence[Row]) -> bytes:
    return (json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n").encode()


def _parquet(rows: Sequence[Row]) -> bytes:
    import pandas as pd

    target = BytesIO()
    pd.DataFrame([dataclasses.asdict(row) for row in rows], columns=list(NAMES)).to_parquet(target)
    return target.getvalue()


WRITERS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    ".md": lambda rows: markdown(rows).encode(),
    ".json": _json,
    ".parquet": _parquet,
}
SUFFIXES = (".csv", *WRITERS)


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuse a file whose suffix says no format.

    Raises:
        BadInputError: With those that do.
    """
    name = os.fspath(path)
    if PurePosixPath(name).suffix.lower() not in SUFFIXES:
        raise BadInputError(
            f"output should end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got {name!r}; the suffix chooses the "
            "format",
            options=("output",),
        )


def write_table(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Write rows in the format of the file's suffix.

    Raises:
        BadInputError: If the suffix says no format, or the file cannot be written.
    """
    check_suffix(path)
    name = os.fspath(path)
    writer = WRITERS.get(PurePosixPath(name).suffix.lower())
    if writer is None:
        write_csv(rows, path)
        return
    try:
        write_whole(name, writer(rows))
    except StoreError as error:
        raise BadInputError(
            f"{name} should be writable and is not ({error.__cause__ or error}); choose another file"
        ) from error
