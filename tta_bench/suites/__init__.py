# SPDX-License-Identifier: Apache-2.0
"""Named, versioned benchmark definitions: one YAML file each in this package, with the options of a run.

A version is raised whenever a change of the file could change a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from tta_bench.config import Options, merged, validated
from tta_bench.errors import UnknownNameError

SUFFIX = ".yaml"


class Suite(BaseModel):
    """One suite.

    Attributes:
        name: On the command line; the name of its file.
        version: Raised with every change of meaning.
        title: One line for lists.
        options: The options of its run.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    version: int
    title: str
    options: Options

    def options_for(self, methods: Sequence[str] | None) -> dict[str, Any]:
        """Return the options, without presets and settings of methods that are not in the run.

        Args:
            methods: The methods that run instead of the suite's own; None: those.
        """
        options = self.options.model_dump(exclude_none=True)
        if methods is None:
            return options
        presets = {name: preset for name, preset in options.get("presets", {}).items() if name in methods}
        settings = [one for one in options.get("settings", []) if _owner(one) in ("", *methods)]
        return {**options, "presets": presets, "settings": settings}


def _owner(setting: str) -> str:
    """Return the method that a ``--set`` value names; empty: all."""
    return setting.partition("=")[0].rpartition(".")[0]


def suite_names() -> list[str]:
    """Return the names of all suites."""
    entries = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in entries if name.endswith(SUFFIX))


def load_suite(name: str) -> Suite:
    """Return a suite.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if name not in suite_names():
        raise UnknownNameError("suite", name, suite_names(), "`tta-bench list suites` shows all")
    path = name + SUFFIX
    content = yaml.safe_load(files(__name__).joinpath(path).read_text(encoding="utf-8"))
    return validated(Suite, content, path)


def within(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a suite's run, where those that are given win.

    Given settings come after the suite's, which stay; the other given options replace the suite's. What was
    given is listed under ``suite``.

    Args:
        name: Of the suite.
        given: Options, see `tta_bench.config.Options`.
    """
    suite = load_suite(name)
    own = suite.options_for(given.get("methods"))
    settings = [*own.get("settings", []), *given.get("settings", [])]
    facts = {"name": suite.name, "version": suite.version, "changed": sorted(given)}
    return {**merged([own, given]), "settings": settings, "suite": facts}
