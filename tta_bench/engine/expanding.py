# SPDX-License-Identifier: Apache-2.0
"""Turns names that stand for several into those names: commas, wildcards, and groups of methods."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tta_bench import registry
from tta_bench.engine.live import Kind, Live
from tta_bench.errors import BadInputError, Caution
from tta_bench.hyperparameters import method_class
from tta_bench.method import Method
from tta_bench.names import choose_datasets, choose_methods, choose_models
from tta_bench.spec import Request


def expanded(
    request: Request,
    live: Live,
    files: Mapping[str, type[Method]],
    make: Callable[[str], Method],
) -> Request:
    """Return a request in which every name stands for one thing.

    A method that cannot run as asked, such as one that needs a file of weights, is left out of a group with a
    caution, where its own name would be an error.

    Args:
        request: The request.
        live: Objects of this process, which stand for themselves.
        files: Methods of plug-in files by name.
        make: Makes a method with the settings and presets of the request.

    Raises:
        UnknownNameError: For a name, a wildcard or a group that stands for nothing.
    """
    known = [*registry.registered("methods"), *files]

    def members(group: str) -> list[str]:
        inside = (name for name in known if group in method_class(name, files).card.groups)
        return [name for name in inside if name in request.methods or _can_run(request, name, group, make)]

    def methods(tokens: Sequence[str]) -> list[str]:
        return choose_methods(tokens, known, members)

    return replace(
        request,
        methods=_chosen("method", request.methods, live, methods),
        datasets=_chosen("dataset", request.datasets, live, choose_datasets),
        models=_chosen("model", request.models, live, choose_models),
    )


def _can_run(request: Request, name: str, group: str, make: Callable[[str], Method]) -> bool:
    try:
        method = make(name)
        method.check_protocol(request.reset or method.card.reset, request.batch_size or method.card.chunk)
    except BadInputError as error:
        warnings.warn(f"{name} is left out of @{group}: {error}", Caution, stacklevel=2)
        return False
    return True


def _chosen(
    kind: Kind, tokens: Sequence[str], live: Live, choose: Callable[[Sequence[str]], list[str]]
) -> tuple[str, ...]:
    """Return what tokens stand for, in their order; objects of this process stand for themselves."""
    named = [token for token in tokens if live.find(kind, token) is None]
    if len(named) == len(tokens):
        return tuple(choose(tokens))
    apart = ([token] if live.find(kind, token) else choose([token]) for token in tokens)
    return tuple(dict.fromkeys(name for names in apart for name in names))
