# SPDX-License-Identifier: Apache-2.0
"""Split the docstring of a method into its parts."""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple

CODE = re.compile(r"``([^`]+)``")
SHORTEST = 10
"""Characters of the shortest call that counts as an equation without a sign that says so."""


class MethodText(NamedTuple):
    """The parts of a method's docstring, each paragraph as one line; code keeps its backticks.

    Attributes:
        summary: The first line.
        body: The paragraphs between it and the source.
        source: Where the method is published.
        differs: Where this implementation departs from it.
        attributes: Meaning of each hyper-parameter, also of those that base classes declare.
    """

    summary: str
    body: tuple[str, ...]
    source: str
    differs: str
    attributes: dict[str, str]

    def paragraphs(self) -> list[str]:
        """Return all paragraphs in order, the source and the differences under their names."""
        named = (("Source", self.source), ("Differs", self.differs))
        return [self.summary, *self.body, *(f"{name}: {text}" for name, text in named if text)]

    def equations(self) -> list[str]:
        """Return what the body sets as code and is more than a name, in order, each once."""
        found = [text for paragraph in self.body for text in CODE.findall(paragraph)]
        return [text for text in dict.fromkeys(found) if _is_equation(text)]


def read_docstring(method: type) -> MethodText:
    """Return the parts of the docstring of a method's class."""
    paragraphs, attributes = _split(method)
    for base in method.__mro__[1:]:  # shared hyper-parameters are documented where they are declared
        attributes = _split(base)[1] | attributes
    text = " ".join(paragraphs[1:])
    head, _, differs = text.partition("Differs: ")
    source = head.partition("Source: ")[2]
    body = [part for part in paragraphs[1:] if not part.startswith(("Source: ", "Differs: "))]
    summary = paragraphs[0] if paragraphs else ""
    return MethodText(summary, tuple(body), source.strip(), differs.strip(), attributes)


def _is_equation(text: str) -> bool:
    return " = " in text or "<-" in text or ("(" in text and len(text) >= SHORTEST)


def _split(cls: type) -> tuple[list[str], dict[str, str]]:
    """Return the paragraphs of a docstring and what it says of each attribute."""
    text = inspect.cleandoc(cls.__doc__ or "")
    head, _, tail = text.partition("\nAttributes:\n")
    attributes: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(tail).splitlines():
        if line and not line[0].isspace():
            name, _, meaning = line.partition(": ")
            attributes[name] = meaning.strip()
        elif name and line.strip():
            attributes[name] += " " + line.strip()
    return [" ".join(part.split()) for part in head.split("\n\n") if part.strip()], attributes
