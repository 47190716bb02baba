# SPDX-License-Identifier: Apache-2.0
"""Patterns that stand for several names (``rpl,tent``, ``pocket-*``, ``@online``), and names that are not registered.

Nothing here imports torch, so that a mistyped name is answered at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from tta_bench import registry
from tta_bench.errors import UnknownNameError
from tta_bench.registry import Group
from tta_bench.spec import Request

GROUPS: Mapping[str, str] = {
    "episodic": "methods whose predictions draw on their own image",
    "online": "methods whose predictions draw on what came before",
    "transductive": "methods whose predictions draw on the other images of a batch",
    "clip": "methods of CLIP-like models, which need a text side",
    "forward-only": "methods that need no gradients",
}
"""Groups of methods, by the name behind their ``@``; what a method belongs to follows from its card."""
_WILD = re.compile(r"[*?\[]")
_FILE = re.compile(r"\.(pt|pth|bin|ckpt|tar|safetensors|csv)$", re.IGNORECASE)


def is_wild(text: str) -> bool:
    """Return whether a text stands for the names that it matches: it holds ``*``, ``?`` or ``[``."""
    return bool(_WILD.search(text))


def split(tokens: Iterable[str]) -> list[str]:
    """Return the names in texts of which each may hold several, joined by commas."""
    return [part.strip() for token in tokens for part in token.split(",") if part.strip()]


def choose_methods(
    tokens: Sequence[str], known: Sequence[str], members: Callable[[str], Iterable[str]]
) -> list[str]:
    """Return the methods that texts stand for, in the order of the texts, each once.

    Args:
        tokens: Names, wildcards and groups, also joined by commas: ``tent``, ``come-*``, ``@online``, ``@online+clip``
            for those that are in both groups; a ``-`` before one takes its methods out again.
        known: All names.
        members: Returns the methods of a group.

    Raises:
        UnknownNameError: For a name, a wildcard or a group that stands for nothing.
    """
    found: dict[str, None] = {}
    for text in split(tokens):
        token = text.removeprefix("-")
        if token.startswith("@"):
            groups = [set(members(_group(part))) for part in token.removeprefix("@").split("+")]
            meant = [name for name in known if all(name in group for group in groups)]
        else:
            meant = matching("methods", token, known)
        for name in meant:
            if text.startswith("-"):
                found.pop(name, None)
            else:
                found.setdefault(name)
    return list(found)


def _group(name: str) -> str:
    name = name.removeprefix("@")
    if name not in GROUPS:
        raise UnknownNameError("group of methods", f"@{name}", [f"@{one}" for one in GROUPS])
    return name


def matching(kind: Group, token: str, known: Iterable[str]) -> list[str]:
    """Return the known names that a name or a wildcard stands for.

    Raises:
        UnknownNameError: If there is none.
    """
    names = list(known)
    found = [name for name in names if fnmatchcase(name, token)] if is_wild(token) else [token]
    if not found or found[0] not in names:
        raise UnknownNameError(kind[:-1], token, names, f"`tta-bench list {kind}` shows all")
    return found


def choose_datasets(tokens: Iterable[str]) -> list[str]:
    """Return the datasets that texts stand for; what follows the first colon stays as it is.

    A text is parted at its commas where every part begins with a known name, so that a path keeps its own.

    Raises:
        UnknownNameError: For a wildcard that stands for nothing.
    """
    known = registry.registered("datasets")
    found: dict[str, None] = {}
    for part in split_datasets(tokens):
        name, colon, rest = part.partition(":")
        names = matching("datasets", name, known) if is_wild(name) and not is_path(name) else [name]
        found.update(dict.fromkeys(f"{one}{colon}{rest}" for one in names))
    return list(found)


def split_datasets(tokens: Iterable[str]) -> list[str]:
    """Return the datasets in texts that may hold several, joined by commas; a path keeps its own commas."""
    known = registry.registered("datasets")
    found = []
    for token in tokens:
        parts = [part.strip() for part in token.split(",")]
        found += parts if len(parts) == 1 or all(_begins(part, known) for part in parts) else [token]
    return found


def _begins(part: str, known: Iterable[str]) -> bool:
    name = part.partition(":")[0]
    return name in known or (is_wild(name) and any(fnmatchcase(one, name) for one in known))


def choose_models(tokens: Iterable[str]) -> list[str]:
    """Return the models that texts stand for; a wildcard chooses among the registered names.

    Raises:
        UnknownNameError: For a wildcard that stands for nothing.
    """
    known = registry.registered("models")
    found: dict[str, None] = {}
    for token in tokens:
        parts = [part.strip() for part in token.split(",")]
        whole = len(parts) > 1 and not all(_family(part) in known or is_wild(part) for part in parts)
        for part in [token] if whole else parts:
            names = matching("models", part, known) if is_wild(part) and not is_path(part) else [part]
            found.update(dict.fromkeys(names))
    return list(found)


def _family(model: str) -> str:
    return re.split("[/:]", model, maxsplit=1)[0]


def is_path(text: str) -> bool:
    """Return whether a text looks like a path: it is there, has a separator or the suffix of a file."""
    return (
        text.startswith((".", "~"))
        or "/" in text
        or "\\" in text
        or bool(_FILE.search(text))
        or Path(text).exists()
    )


def check_request(request: Request) -> None:
    """Refuse names of a request as `check_names` does; files that it names may define any of them."""
    if request.plugins:
        return
    check_names(methods=request.methods, datasets=request.datasets, models=request.models)


def check_names(
    methods: Sequence[str] = (), datasets: Iterable[str] = (), models: Iterable[str] = ()
) -> None:
    """Refuse names that nothing is registered under, without importing anything.

    What looks like a path is left to those who read it.

    Raises:
        UnknownNameError: For the first one.
    """
    known = list(registry.registered("methods"))
    choose_methods(methods, known, lambda group: known)
    for token in choose_datasets(datasets):
        _check("datasets", token.partition(":")[0], token)
    for token in choose_models(models):
        _check("models", _family(token), token)


def _check(kind: Group, name: str, token: str) -> None:
    known = registry.registered(kind)
    if name not in known and not is_path(name) and not is_path(token):
        own = f", and a folder of images is written ./{name}" if kind == "datasets" else ""
        raise UnknownNameError(kind[:-1], token, known, f"`tta-bench list {kind}` shows all{own}")
