# SPDX-License-Identifier: Apache-2.0
"""The exception tree: every error that a user can cause is one sentence and ends with exit code 2.

TTABenchError
├── BadInputError            a value that we cannot accept
│   ├── UnknownNameError     a name that no registry, dataset or method knows
│   └── IncompatibleError    a method, model and dataset that do not fit together
├── PluginError              a plug-in that cannot be imported or breaks its contract
├── StoreError               a run folder that cannot be read or written
│   └── DamagedError         a cell of it that is not what was written
└── MixedProtocolError       rows that must not stand in one table
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST_LISTED = 40  # names in one sentence; libraries know thousands


class TTABenchError(Exception):
    """Base of all errors that are shown to the user as one sentence, without a traceback.

    Args:
        sentence: What was expected, what came, what to do; options carry their Python names.
        options: The options that the sentence names, for the command line to replace by its flags.
    """

    options: tuple[str, ...] = ()

    def __init__(self, sentence: object = "", *, options: tuple[str, ...] = ()) -> None:
        super().__init__(sentence)
        if options:
            self.options = options


class Caution(UserWarning):
    """Tell the user in one sentence of something that is right as it was asked but may mislead."""


class BadInputError(TTABenchError, ValueError):
    """Report a value that was given and cannot be accepted."""


class UnknownNameError(BadInputError):
    """Report a name that is not known, with the nearest known names.

    Args:
        kind: What was asked for, e.g. ``"method"``.
        name: The name that was given.
        known: All names that would have been accepted.
        hint: What to do next; defaults to pointing at the full list.
        options: As in `TTABenchError`.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        known: Iterable[str],
        hint: str = "",
        *,
        options: tuple[str, ...] = (),
    ) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        near = nearest(name, self.known)
        joint = " " if near.endswith("?") else "; "
        super().__init__(f"unknown {kind} {name!r}; {near}{joint + hint if hint else ''}", options=options)


class IncompatibleError(BadInputError):
    """Report a method, a model and a dataset that do not fit together."""


class PluginError(TTABenchError):
    """Report a plug-in that cannot be imported, is registered twice, or is not what it claims to be."""


class StoreError(TTABenchError):
    """Report a run folder that cannot be read or written."""


class DamagedError(StoreError):
    """Report what is stored of a cell and is not what was written; the cell can be computed again."""


class MixedProtocolError(TTABenchError):
    """Report rows whose protocol facts differ so that one table would mislead."""


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """Return the phrase that names the known names nearest to a mistyped one.

    Args:
        name: The name that was given.
        known: The names that would have been accepted.
        most: How many near names to give at most; without a near one the known ones are listed.
    """
    names = list(known)
    lowered = {item.lower(): item for item in names}
    close = [lowered[item] for item in get_close_matches(name.lower(), list(lowered), n=most, cutoff=0.55)]
    if close:
        return "did you mean " + " or ".join(repr(item) for item in close) + "?"
    rest = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return (
        f"known: {', '.join(names[:MOST_LISTED])}{rest}"
        if names
        else "nothing is registered under that heading"
    )
