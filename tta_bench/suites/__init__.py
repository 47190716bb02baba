# SPDX-License-Identifier: Apache-2.0
"""Named, versioned benchmark definitions: one YAML file each in this package, with the options of a run.

A version is raised whenever a change of the file could change a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from tta_bench.config import read_options
from tta_bench.errors import UnknownNameError
from tta_bench.spec import SuiteUse, merged, parse_setting

SUFFIX = ".yaml"


@dataclass(frozen=True)
class Suite:
    """One suite.

    Attributes:
        name: On the command line; the name of its file.
        version: Raised with every change of meaning.
        title: One line for lists.
        options: The options of its run.
    """

    name: str
    version: int
    title: str
    options: Mapping[str, Any]

    def options_for(self, methods: Sequence[str] | None) -> dict[str, Any]:
        """Return the options, without presets and settings of methods that are not in the run.

        Args:
            methods: The methods that run instead of the suite's own; None: those.
        """
        options = dict(self.options)
        if methods is None:
            return options
        presets = {
            name: preset for name, preset in options.get("presets", {}).items() if name in ("", *methods)
        }
        settings = [one for one in options.get("settings", ()) if parse_setting(one).method in ("", *methods)]
        return {**options, "presets": presets, "settings": tuple(settings)}


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
    return Suite(**{**content, "options": read_options(content["options"], path)})


def within(name: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], SuiteUse]:
    """Return the options of a suite's run, where those that are given win, and what was given.

    Given settings come after the suite's, which stay; the other given options replace the suite's.

    Args:
        name: Of the suite.
        given: Options of a run as `tta_bench.spec.Request` has them.
    """
    suite = load_suite(name)
    own = suite.options_for(given.get("methods"))
    settings = (*own.get("settings", ()), *given.get("settings", ()))
    use = SuiteUse(suite.name, suite.version, tuple(sorted(given)))
    return {**merged([own, given]), "settings": settings}, use
