# SPDX-License-Identifier: Apache-2.0
"""The command line: one file per command, heavy imports inside the commands."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from tta_bench import __version__
from tta_bench.cli.cache import cache_app
from tta_bench.cli.compare import compare
from tta_bench.cli.data import data_app
from tta_bench.cli.describe import describe
from tta_bench.cli.doctor import doctor
from tta_bench.cli.ending import Commands, require_output, say_on_stderr, stopped_by_signals
from tta_bench.cli.examples import EXIT_CODES, epilog
from tta_bench.cli.islands import islands
from tta_bench.cli.leaderboard import leaderboard
from tta_bench.cli.listing import list_names
from tta_bench.cli.options import for_terminal, with_flags
from tta_bench.cli.parity import parity
from tta_bench.cli.recommend import recommend
from tta_bench.cli.run import run
from tta_bench.cli.study import study
from tta_bench.cli.sweep import sweep
from tta_bench.cli.validate import validate
from tta_bench.errors import Caution, TTABenchError
from tta_bench.spec.warned import in_our_words

BAD_INPUT = 2

app = typer.Typer(
    name="tta-bench",
    cls=Commands,
    help="Benchmark test-time adaptation of image classifiers and CLIP-like models.",
    epilog=f"A first run with nothing to download: tta-bench run --method apm --dataset pocket-c\n\n{EXIT_CODES}",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", epilog=epilog("run"))(run)
app.command("list", epilog=epilog("list"))(list_names)
app.command("describe", epilog=epilog("describe"))(describe)
app.command("leaderboard", epilog=epilog("leaderboard"))(leaderboard)
app.command("compare", epilog=epilog("compare"))(compare)
app.command("sweep", epilog=epilog("sweep"))(sweep)
app.command("recommend", epilog=epilog("recommend"))(recommend)
app.command("validate", epilog=epilog("validate"))(validate)
app.command("parity", epilog=epilog("parity"))(parity)
app.command("study", epilog=epilog("study"))(study)
app.command("doctor", epilog=epilog("doctor"))(doctor)
app.command("islands", epilog=epilog("islands"))(islands)
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tta-bench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Benchmark test-time adaptation of image classifiers and CLIP-like models."""


def main() -> None:
    """Run the command line; a user's error is one sentence on stderr and exit code 2."""
    shown, warnings.showwarning = warnings.showwarning, _told(warnings.showwarning)
    try:
        require_output()
        _print_what_the_console_cannot_show()
        with stopped_by_signals():
            app()
    except TTABenchError as error:
        say_on_stderr(f"tta-bench: {for_terminal(error)}")
        sys.exit(BAD_INPUT)
    finally:
        warnings.showwarning = shown


def _print_what_the_console_cannot_show() -> None:
    """Write letters that the output's encoding does not have as escapes; a path must not end a run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _told(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Return how warnings are shown: our own as a sentence, others as that which we have for them, or not at all.

    Whoever asks Python for warnings, by ``-W`` or ``PYTHONWARNINGS``, gets those of libraries as they are.
    """
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        ours = issubclass(category, Caution)
        sentence = with_flags(str(message)) if ours else in_our_words(f"{category.__name__}: {message}")
        if sys.warnoptions and not ours:
            otherwise(message, category, *where, **more)
        elif sentence is not None and (ours or sentence not in said):
            said.add(sentence)
            say_on_stderr(f"tta-bench: note: {sentence}")

    return show
