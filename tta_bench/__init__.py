# SPDX-License-Identifier: Apache-2.0
"""A benchmark suite for test-time adaptation of image classifiers and CLIP-like models.

``evaluate`` runs methods over data, ``load`` reads the results of runs; see `tta_bench.api`. Importing the package
imports neither of them, nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tta_bench.api import Results, dataset, evaluate, folder, islands, load, model

__version__ = "0.1.0"
__all__ = ["Results", "dataset", "evaluate", "folder", "islands", "load", "model"]


def __getattr__(name: str) -> Any:
    """Return a name of the Python interface, which is imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("tta_bench.api"), name)


def __dir__() -> list[str]:
    """Return the names of the Python interface beside those that are there."""
    return sorted([*globals(), *__all__])
