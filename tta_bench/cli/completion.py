# SPDX-License-Identifier: Apache-2.0
"""Shell completion of the registered names, also behind a comma."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Complete = Callable[[str], list[str]]


def _behind_commas(names: Callable[[], Iterable[str]]) -> Complete:
    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(last)]

    return complete


def _methods() -> list[str]:
    from tta_bench import registry
    from tta_bench.names import GROUPS

    return [*registry.registered("methods"), *(f"@{group}" for group in GROUPS)]


def _datasets() -> list[str]:
    from tta_bench import registry

    return list(registry.registered("datasets"))


def _models() -> list[str]:
    from tta_bench import registry

    return list(registry.registered("models"))


def _suites() -> list[str]:
    from tta_bench.suites import suite_names

    return suite_names()


def _prompts() -> list[str]:
    from tta_bench.prompts import prompt_names

    return list(prompt_names())


def _names() -> list[str]:
    return [*(name for name in _methods() if not name.startswith("@")), *_datasets()]


def _own_methods() -> list[str]:
    return [name for name in _methods() if not name.startswith("@")]


COMPLETE: dict[str, Complete] = {
    "methods": _behind_commas(_methods),
    "datasets": _behind_commas(_datasets),
    "models": _behind_commas(_models),
    "suite": _behind_commas(_suites),
    "prompts": _behind_commas(_prompts),
    "method": _behind_commas(_own_methods),
    "dataset": _behind_commas(_datasets),
    "name": _behind_commas(_names),
}
"""By what the option or the argument takes."""
