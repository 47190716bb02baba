# SPDX-License-Identifier: Apache-2.0
"""The option ``--plugin`` of every command that names methods, datasets or models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tta_bench.method import Method

Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        help="Python file that defines methods (by their `name`, or their class in lower case), datasets or models; "
        "repeat for several.",
    ),
]


def methods_of_files(paths: Iterable[str] | None) -> dict[str, type[Method]]:
    """Return the methods of plug-in files by name, and make their datasets and models known; no files, no imports.

    Raises:
        PluginError: If a file cannot be imported, or has a name that another has.
    """
    if not paths:
        return {}
    from tta_bench.hyperparameters import plugin_methods

    return {name: cls for name, (cls, _) in plugin_methods(paths).items()}
