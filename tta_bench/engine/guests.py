# SPDX-License-Identifier: Apache-2.0
"""Tell apart whose failure it is: foreign code fails its cell, the store ends the run, a reporter falls silent."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from tta_bench.engine.ports import Reporter, RowWriter
from tta_bench.registry import FAILURES, brief

P = ParamSpec("P")
T = TypeVar("T")


class Kept:
    """Calls to the store during one cell.

    Attributes:
        failure: What the store raised; a method may raise the same kinds of errors, which are its own.
    """

    def __init__(self) -> None:
        self.failure: BaseException | None = None

    def call(self, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Call a function of the store, and remember what it raises."""
        try:
            return function(*args, **options)
        except Exception as error:
            self.failure = error
            raise

    def writer(self, writer: RowWriter) -> RowWriter:
        """Return a writer whose failures are remembered."""
        return _KeptWriter(self, writer)


class _KeptWriter:
    def __init__(self, kept: Kept, writer: RowWriter) -> None:
        self._kept, self._writer = kept, writer

    def append(self, columns: Mapping[str, Any]) -> None:
        self._kept.call(self._writer.append, columns)

    def keep_state(self, dump: Callable[[], bytes | None]) -> None:
        self._kept.call(self._writer.keep_state, dump)

    def close(self) -> None:
        self._kept.call(self._writer.close)


class QuietReporter:
    """A reporter that says nothing more once its output is gone: reporting never decides about a cell.

    Args:
        reporter: Shows the progress.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._silent = reporter, False

    def _tell(self, function: Callable[P, None], *args: P.args, **options: P.kwargs) -> None:
        if self._silent:
            return
        try:
            function(*args, **options)
        except (OSError, ValueError):  # a broken pipe, a full disk behind the output, a closed file
            self._silent = True

    def cell_started(self, label: str, done: int, total: int) -> None:
        """Tell that a cell begins."""
        self._tell(self._reporter.cell_started, label, done, total)

    def preparing(self, method: str, done: int, total: int | None) -> None:
        """Tell how many source images a method has read before the stream."""
        self._tell(self._reporter.preparing, method, done, total)

    def advanced(self, images: int) -> None:
        """Tell that so many more images were predicted."""
        self._tell(self._reporter.advanced, images)

    def cell_ended(self, label: str, status: str, detail: str = "") -> None:
        """Tell how a cell ended."""
        self._tell(self._reporter.cell_ended, label, status, detail)


def decoder_died(error: BaseException) -> bool:
    """Return whether a process that decodes images died; torch raises that wherever the main thread is just then."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an error, also of one that cannot say what it is."""
    try:
        return "".join(traceback.format_exception(error))
    except FAILURES:  # its own text fails
        return "".join([*traceback.format_tb(error.__traceback__), brief(error), "\n"])
