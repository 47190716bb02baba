# SPDX-License-Identifier: Apache-2.0
"""Ends a command on a signal or a broken output: quietly or in one sentence, with the usual exit code."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from tta_bench.errors import BadInputError
from tta_bench.spec.texts import masked, visible

WRITING = (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF, errno.EFBIG)
"""Exceptions raised when an output cannot be written."""
BROKEN_PIPE = 128 + 13
"""The code that a shell reports for a process whose reader went away."""
NARROWEST = 20
"""The least width that sentences are wrapped to."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """Report a signal that asks the process to stop; SIGTERM and SIGHUP end a run as Ctrl-C does.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` where a signal arrives inside this context, unless the signal is ignored."""
    process, before = os.getpid(), {}

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a worker that was forked dies of the signal as any process
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Stopped(number)

    with suppress(ValueError):  # outside the main thread signals stay as they are
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code(error: KeyboardInterrupt) -> int:
    """Return the code of a process that was asked to stop."""
    return error.code if isinstance(error, Stopped) else 128 + signal.SIGINT


def say_on_stderr(sentence: str) -> None:
    """Print a sentence to standard error, if there is still one: wrapped between words on a terminal."""
    text = visible(masked(sentence))
    with suppress(OSError, ValueError):
        if sys.stderr is not None and sys.stderr.isatty():
            width = max(shutil.get_terminal_size().columns, NARROWEST)
            text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
        typer.echo(text, err=True)


class Commands(TyperGroup):
    """The commands; an interruption or a broken output ends each of them in the same way."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Raises:
            BadInputError: If the output cannot be written.
        """
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except KeyboardInterrupt as error:
            say_on_stderr("tta-bench: interrupted")
            raise typer.Exit(exit_code(error)) from None
        except OSError as error:
            failure = _output_failure(error)
            if failure is None:
                raise
            _let_go_of_output()
            if isinstance(failure, BrokenPipeError):
                raise typer.Exit(BROKEN_PIPE) from None
            raise BadInputError(
                f"the standard output should take what is printed and does not ({failure}); redirect it elsewhere"
            ) from error


def require_output() -> None:
    """Check that there is a standard output.

    Raises:
        BadInputError: If it was closed before the start.
    """
    if sys.stdout is None:
        raise BadInputError(
            "the standard output is closed; redirect it, for instance to a file or to /dev/null"
        )


def _output_failure(raised: OSError) -> OSError | None:
    """Return why standard output cannot be written, None if it can.

    What is still waiting to be written fails again. An error that names no file and comes from a write is that of the
    output too: the store wraps its own.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return raised if raised.filename is None and raised.errno in WRITING else None


def _let_go_of_output() -> None:
    """Send what is still waiting nowhere, so that the interpreter does not fail on it once more while it ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
