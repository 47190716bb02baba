# SPDX-License-Identifier: Apache-2.0
"""Format numbers for people: percent, points, milliseconds. Only here are accuracies percent."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from tta_bench.spec.texts import visible

PLAIN_WIDTH = 120
"""Columns of the output when it is not a terminal."""


EVEN = 0.005
"""The largest asymmetry of an interval that is still printed as ±."""


class Signs(NamedTuple):
    """Characters that not every output encoding has."""

    plus_minus: str
    none: str


def signs(console: Console) -> Signs:
    """Return the signs that the encoding of a console can show."""
    return Signs("+/-", "-") if console.options.ascii_only else Signs("±", "–")


class PlainConsole(Console):
    """A console on which control characters of names and paths are shown and not obeyed."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render what is printed; texts that were made elsewhere are escaped as strings are."""
        if isinstance(renderable, Text) and visible(renderable.plain) != renderable.plain:
            made = renderable
            renderable = Text(
                visible(made.plain),
                made.style,
                justify=made.justify,
                overflow=made.overflow,
                no_wrap=made.no_wrap,
            )
        return super().render(renderable, options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as text, its control characters escaped."""
        return super().render_str(visible(text), **options)

    def on_broken_pipe(self) -> None:
        """Let the command line decide how to end; the library would end the process with code 1.

        Raises:
            BrokenPipeError: Always.
        """
        raise BrokenPipeError(errno.EPIPE, "the reader of the output went away")


def report_console(file: TextIO | None = None, plain_width: int = PLAIN_WIDTH) -> Console:
    """Return a console for tables: as wide as the terminal, or plain text of a fixed width if it is none.

    What is printed stays text: the name of a shift holds a corruption between colons, which would be an emoji, and a
    path may hold what looks like markup.

    Args:
        file: Where to write; standard output if None.
        plain_width: Columns where there is no terminal.
    """
    target = sys.stdout if file is None else file
    if target.isatty():
        return PlainConsole(file=file, highlight=False, emoji=False, markup=False)
    return PlainConsole(
        file=file,
        width=plain_width,
        no_color=True,
        force_terminal=False,
        highlight=False,
        emoji=False,
        markup=False,
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, ``1 cell`` or ``2 cells``; the plural is given where it does not end in an s."""
    return f"1 {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"


def percent(value: float | None, low: float | None, high: float | None, sign: Signs, *, signed: bool) -> str:
    """Return a fraction as percent (or percentage points) with its interval.

    A symmetric interval is printed as half its width, ``63.5 ± 1.4``; one that is asymmetric by half a point or more
    by its ends, ``98.5 [95.7, 99.5]``.
    """
    if value is None:
        return sign.none
    number = f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
    number = "0.0" if signed and float(number) == 0 else number
    if low is None or high is None or low == high:
        return number
    if abs(low + high - 2 * value) < EVEN:
        return f"{number} {sign.plus_minus} {50 * (high - low):.1f}"
    form = "+.1f" if signed else ".1f"
    return f"{number} [{100 * low:{form}}, {100 * high:{form}}]"


def measured(value: float | None, sign: Signs) -> str:
    """Return a time or a size with three significant digits and no exponent."""
    if value is None:
        return sign.none
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
