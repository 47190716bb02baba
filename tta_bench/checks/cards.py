# SPDX-License-Identifier: Apache-2.0
"""Checks of what a method says about itself: hyper-parameters, card, needs, and that labels cannot reach it."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any, get_args, get_type_hints

from torch import Tensor

from tta_bench.checks.bench import DTYPES, LOWER, Bench
from tta_bench.checks.core import BrokenPromiseError, check, promise, skip_unless
from tta_bench.errors import IncompatibleError
from tta_bench.method import Card, Method, Need
from tta_bench.models.source import SourceModel
from tta_bench.prompts import DATASET, prompt_names
from tta_bench.steps import check_compatible
from tta_bench.testing import sources_for, tiny_clip, tiny_source
from tta_bench.testing.sources import tokenize

ARGUMENTS = {
    "init": ("self", "source", "task"),
    "draw": ("self", "source", "n", "generator"),
    "adapt": ("self", "source", "state", "inputs"),
    "predict": ("self", "source", "state", "inputs"),
}


@check("The class is a frozen dataclass whose hyper-parameters survive being written out and read back.")
def hyper_parameters_survive(method: Method) -> None:
    """Rebuild the method from its fields."""
    cls = type(method)
    promise(
        dataclasses.is_dataclass(cls), f"{cls.__name__} is no dataclass; put @dataclass(frozen=True) above it"
    )
    promise(cls.__dataclass_params__.frozen, f"{cls.__name__} can be changed; say @dataclass(frozen=True)")  # type: ignore[attr-defined]
    fields = dataclasses.fields(method)  # type: ignore[arg-type]
    values = {field.name: getattr(method, field.name) for field in fields if field.init}
    promise(cls(**values) == method, "a method built from the same hyper-parameters is not equal to it")
    try:
        json.dumps(dataclasses.asdict(method))  # type: ignore[call-overload]
    except TypeError as error:
        promise(False, f"hyper-parameters must be numbers, text, tuples or None: {error}")


@check("The card is complete, and what it says is possible.")
def card_complete(method: Method) -> None:
    """Go through the card."""
    card = getattr(method, "card", None)
    if not isinstance(card, Card):
        raise BrokenPromiseError(f"card must be a tta_bench.method.Card, got {type(card).__name__}")
    for name, holds, expected in _card_rules(method, card):
        promise(holds, f"card.{name} must {expected}, got {getattr(card, name, None)!r}")
    summary = (type(method).__doc__ or "").partition("\n")[0]
    promise(
        " " in summary and "(" not in summary.partition(" ")[0],
        "the class has no docstring to be listed with",
    )


def _card_rules(method: Method, card: Card) -> Iterator[tuple[str, bool, str]]:
    """Yield the card's fields, whether each is right, and what it must do."""
    hints = get_type_hints(Card)
    for name in ("category", "updates", "inputs", "output", "predicts", "reset", "draw_device"):
        choices = get_args(hints[name])
        yield name, getattr(card, name) in choices, f"be one of {', '.join(choices)}"
    fields, known = _field_names(method), get_args(Need)
    yield "paper", bool(card.paper.strip()), "say where the method is described"
    yield "licence", bool(card.licence.strip()), "name a licence"
    yield "needs", card.needs <= set(known), f"be among {', '.join(known)}"
    yield (
        "needs",
        card.inputs == "images" or "features" in card.needs,
        "include features where inputs is features",
    )
    yield "precision", bool(card.precision & DTYPES.keys()), "include float32 or float64"
    yield "precision", card.precision <= {*DTYPES, LOWER}, f"be among {', '.join([*DTYPES, LOWER])}"
    yield "prompts", card.prompts in (DATASET, *prompt_names()), f"be {DATASET} or a named set of templates"
    yield "views", card.views is None or card.views.count >= 1, "ask for at least one view"
    yield "chunk", card.chunk >= 1, "be 1 or more"
    yield "reset", card.category != "episodic" or card.reset == "image", "be image where category is episodic"
    yield "grows", bool(card.grows) != card.fixed_shapes, "name leaves exactly where fixed_shapes is False"
    yield "idle", all(name in fields for name, _ in card.idle or ()), "name hyper-parameters of the method"


@check("No argument, attribute or closure can carry a target label to the method.")
def labels_unreachable(method: Method) -> None:
    """Look for any way in besides the documented arguments."""
    for name, expected in ARGUMENTS.items():
        names = tuple(p.lstrip("_") for p in inspect.signature(getattr(type(method), name)).parameters)
        promise(names == expected, f"{name} takes {', '.join(names)}; expected {', '.join(expected)}")
    fields = _field_names(method)
    for name, value in vars(method).items():
        promise(name in fields, f"the method has an attribute {name!r} that is no hyper-parameter")
        promise(
            _plain(value), f"hyper-parameter {name!r} is a {type(value).__name__}, which could hold labels"
        )
    for function in _functions(type(method)):
        for cell in function.__closure__ or ():
            value = cell.cell_contents
            holds = not (isinstance(value, type | FunctionType | ModuleType) or _plain(value))
            kind = type(value).__name__
            promise(not holds, f"{function.__qualname__} closes over a {kind}, which could hold labels")


def _field_names(method: Method) -> set[str]:
    """Return the hyper-parameters; none where the class is no dataclass, which a check of its own reports."""
    return {field.name for field in dataclasses.fields(method)} if dataclasses.is_dataclass(method) else set()


def _functions(cls: type) -> Iterator[FunctionType]:
    """Yield the functions that a method's author wrote, without those that ``dataclass`` makes."""
    for base in cls.__mro__:
        if issubclass(base, Method):
            file = getattr(sys.modules.get(base.__module__), "__file__", None)
            bare = (inspect.unwrap(value) for value in vars(base).values() if isinstance(value, FunctionType))
            yield from (f for f in bare if isinstance(f, FunctionType) and f.__code__.co_filename == file)


def _plain(value: Any) -> bool:
    """Return whether a value is a number, text, None or a small container of such values."""
    if isinstance(value, dict):
        return all(_plain(item) for pair in value.items() for item in pair)
    if isinstance(value, tuple | list | frozenset | set):
        return len(value) <= 64 and all(_plain(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(_plain(item) for item in vars(value).values())
    return value is None or isinstance(value, str | int | float | bool)


WITHOUT: dict[str, Callable[[], SourceModel]] = {
    "batchnorm": lambda: tiny_source("group"),
    "text": lambda: tiny_source("batch"),
    "reward": lambda: tiny_source("batch"),
    "patch_features": lambda: tiny_source("batch"),
    "attention": lambda: tiny_source("batch"),
    "class_token": lambda: tiny_source("batch"),
}
POCKET: dict[str, frozenset[Need]] = {
    "pocket-bn": frozenset({"batchnorm"}),
    "pocket-gn": frozenset(),
    "pocket-clip": frozenset({"text"}),
    "pocket-vit-clip": frozenset({"text", "patch_features", "attention", "class_token"}),
}


@check(
    "A model without what the card needs is refused, and the card's default model has it.",
    applies="the card needs batchnorm, text, reward, patch_features, attention or class_token",
)
def needs_are_met(method: Method) -> None:
    """Offer the method a model without each part, then models that have them all."""
    parts = sorted(method.card.needs & WITHOUT.keys())
    skip_unless(parts, "every model has what the card needs")
    for part in parts:
        promise(not _accepted(method, WITHOUT[part]()), f"a model without {part} was accepted")
    for source in sources_for(method):
        promise(_accepted(method, source), f"{source.name} was refused")
    if method.card.model in POCKET:
        asked = method.card.needs & frozenset().union(*POCKET.values())
        missing = " or ".join(sorted(asked - POCKET[method.card.model]))
        promise(not missing, f"card.model is {method.card.model}, which has no {missing}; name another")


def _accepted(method: Method, source: SourceModel) -> bool:
    try:
        check_compatible(method, source)
    except IncompatibleError:
        return False
    return True


@check(
    "Every sentence that the method encodes is the source model's, or one that `sentences` names.",
    applies="the card needs text",
)
def sentences_are_named(method: Method) -> None:
    """Listen to the tokenizer of a CLIP-like model during two steps."""
    skip_unless("text" in method.card.needs, "the card does not need text")
    heard: list[str] = []

    def listening(prompts: list[str]) -> Tensor:
        heard.extend(prompts)
        return tokenize(prompts)

    source = tiny_clip(tokenizer=listening)
    if "reward" in method.card.needs:
        source.reward = tiny_clip(seed=10, tokenizer=listening)
    bench = Bench(method, source)
    bench.steps(bench.init(), range(2))
    assert source.text is not None
    allowed = (*source.text.sentences, *method.sentences(source))
    # The beginning of a sentence may be tokenized alone, to find where the rest of it stands.
    stray = sorted({text for text in heard if not any(_is_stated(text, one) for one in allowed)})
    promise(
        not stray,
        f"{stray[:1] and stray[0]!r} was encoded; return it from `sentences`, so that the record has it",
    )


def _is_stated(text: str, sentence: str) -> bool:
    """Return whether a text is a sentence or its beginning; ``{}`` in a sentence stands for any words."""
    pattern = ".*".join(map(re.escape, sentence.split("{}")))
    return sentence.startswith(text) or ("{}" in sentence and re.fullmatch(pattern, text) is not None)
