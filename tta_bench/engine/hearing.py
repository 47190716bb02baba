# SPDX-License-Identifier: Apache-2.0
"""Warnings of libraries and plug-ins: kept for the manifest, and away from the terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tta_bench.errors import Caution
from tta_bench.spec.warned import in_our_words

MOST_WARNINGS = 20
LOUD = ("huggingface_hub",)
"""Libraries whose logs do not reach the root, but a handler of their own."""


@dataclass(frozen=True)
class Heard:
    """Warnings and cautions, each once.

    Attributes:
        warnings: Of libraries and plug-ins.
        cautions: Our own.
        said: What a user can do about warnings, as far as it was shown.
    """

    warnings: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    said: set[str] = field(default_factory=set)

    def keep(self, texts: list[str], text: str) -> None:
        """Add a text to one of the lists."""
        if text not in texts and len(texts) < MOST_WARNINGS:
            texts.append(text)


@contextmanager
def warnings_heard(heard: Heard) -> Iterator[None]:
    """Collect the warnings and log lines of libraries and plug-ins inside this context instead of showing them.

    Our own cautions are shown as well, and once what a user can do about a warning that is known.
    """
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def keep(text: str) -> None:
            heard.keep(heard.warnings, text)
            sentence = in_our_words(text)
            if sentence is not None and sentence not in heard.said:
                heard.said.add(sentence)
                shown(Caution(sentence), Caution, __file__, 0)

        def hear(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, Caution):
                shown(message, category, *where, **more)
                heard.keep(heard.cautions, str(message))
            else:
                keep(f"{category.__name__}: {message}")

        warnings.showwarning = hear
        with _logs_heard(keep):
            yield


class _Ear(logging.Handler):
    def __init__(self, keep: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._keep = keep

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line; one that cannot be formatted is its author's error and no reason to stop."""
        try:
            self._keep(f"{record.levelname} of {record.name}: {record.getMessage()}")
        except (TypeError, ValueError):
            self._keep(f"{record.levelname} of {record.name}: {record.msg}")


@contextmanager
def _logs_heard(keep: Callable[[str], None]) -> Iterator[None]:
    """Hear what is logged; a program that handles its logs itself goes on doing so."""
    root, ear = logging.getLogger(), _Ear(keep)
    loud = {logger: logger.handlers[:] for logger in map(logging.getLogger, LOUD)}
    root.addHandler(ear)
    for logger, handlers in loud.items():
        logger.handlers[:] = [] if logger.propagate or not handlers else [ear]
    try:
        yield
    finally:
        root.removeHandler(ear)
        for logger, handlers in loud.items():
            logger.handlers[:] = handlers
