# SPDX-License-Identifier: Apache-2.0
"""Derive the options of a command from their declarations, and put flags into the sentences of errors."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Annotated, Any

import typer

from tta_bench.cli.completion import COMPLETE
from tta_bench.errors import TTABenchError
from tta_bench.spec import Controls, Request
from tta_bench.spec.options import Option, as_flag, options_of

REQUEST, CONTROLS = options_of(Request), options_of(Controls)


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag for every declared option, before those that it declares itself.

    Args:
        command: Takes the options of requests and of controls that were typed, by name, and its own options.
    """

    @wraps(command)
    def run(**values: Any) -> None:
        given = {name: values.pop(name) for name in [*REQUEST, *CONTROLS] if name in values}
        command({name: value for name, value in given.items() if value is not None}, **values)

    declared = [_parameter(one) for one in [*REQUEST.values(), *CONTROLS.values()] if one.flag]
    signature = inspect.signature(command, eval_str=True)
    own = [one.replace(kind=one.KEYWORD_ONLY) for one in list(signature.parameters.values())[1:]]
    run.__signature__ = inspect.Signature([*declared, *own])  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in [*declared, *own]}
    return run


def _parameter(one: Option) -> inspect.Parameter:
    """Return the parameter of an option; what is not typed is None, since a file may give it."""
    kind: Any = str if one.facts.read is not None else one.kind
    kind = (list[kind] if one.many or one.by_name else kind) | None
    annotation: Any = Annotated[kind, typer.Option(
        one.flag, help=one.facts.help, show_default=False, autocompletion=COMPLETE.get(one.name)
    )]  # fmt: skip
    return inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def for_terminal(error: TTABenchError) -> str:
    """Return the sentence of an error with flags in the place of the options that it names.

    The first ``name=value``, or else the first ``name``, becomes the flag with its value; without any the flag follows
    the sentence.
    """
    sentence = str(error)
    for name in error.options:
        flag, changed = flag_of(name), sentence
        for pattern in (rf'\b{name}=(?P<value>\w+|"[^"]*")?', rf"\b{name}\b(?P<value>)"):
            if changed == sentence:
                changed = re.sub(pattern, partial(_typed, flag), sentence, count=1)
        sentence = changed if changed != sentence else f"{sentence} ({flag})"
    return sentence


def with_flags(sentence: str) -> str:
    """Return a sentence with flags in the place of all options that it gives a value, as ``batch_size=1``."""
    declared = {**REQUEST, **CONTROLS}
    for name in re.findall(r"\b(\w+)=", sentence):
        if name in declared:
            sentence = re.sub(rf'\b{name}=(?P<value>\w+|"[^"]*")?', partial(_typed, flag_of(name)), sentence)
    return sentence


def _typed(flag: str, found: re.Match[str]) -> str:
    """Return a flag with its value as it is typed: ``--force``, ``--no-memory``, ``--prompts NAME``."""
    value = (found["value"] or "").strip('"')
    if value == "False":
        return flag.replace("--", "--no-", 1)
    return flag if value in ("", "True") else f"{flag} {value}"


def flag_of(name: str) -> str:
    """Return the flag of an option; one that turns something on or off has two, of which this is the first."""
    declared: Mapping[str, Option] = {**REQUEST, **CONTROLS}
    flag = declared[name].flag if name in declared else as_flag(name)
    return (flag or as_flag(name)).partition("/")[0]
