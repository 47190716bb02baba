# SPDX-License-Identifier: Apache-2.0
"""Text from outside, made safe for terminals, spreadsheets and logs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_PASSWORD = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@\"']*):[^\s/@\"']+@")
_SECRET = re.compile(
    r"(?i)(?P<before>[?&](?:[a-z_-]*(?:token|secret|password|signature)|sig|apikey|api_key|key)=)[^&\s\"']+"
)
FORMULA = ("=", "+", "-", "@", "\t")
"""First characters of spreadsheet cells that are computed instead of shown."""


def visible(text: str) -> str:
    """Return text whose control characters, and those that turn the direction of writing, are escapes.

    Line ends and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(one) if _obeyed(one) else one for one in text)


def _obeyed(character: str) -> bool:
    """Return whether a terminal does something for a character instead of showing it."""
    return character not in "\n\t" and (
        unicodedata.category(character) == "Cc"
        or character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def masked(text: str) -> str:
    """Return text in which passwords, tokens and signatures of URLs are ``***``."""
    if "://" not in text:
        return text
    return _SECRET.sub(r"\g<before>***", _PASSWORD.sub(r"\g<before>:***@", text))


def spreadsheet_text(text: str) -> str:
    """Return the text of a field that a spreadsheet shows and does not compute; `from_spreadsheet` undoes it."""
    shown = visible(masked(text)).replace("\n", "\\n")
    return f"'{shown}" if shown.startswith((*FORMULA, "'")) else shown


def spreadsheet_row(values: Iterable[object]) -> list[object]:
    """Return the fields of a row, its texts as `spreadsheet_text` gives them."""
    return [spreadsheet_text(one) if isinstance(one, str) else one for one in values]


def from_spreadsheet(text: str) -> str:
    """Return the text that a field stands for."""
    return text[1:] if text.startswith("'") else text
