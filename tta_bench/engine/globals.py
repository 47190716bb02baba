# SPDX-License-Identifier: Apache-2.0
"""Process-wide settings: set as a run needs them, the same for every cell, and restored afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tta_bench.checks.guard import seeded, settings_kept
from tta_bench.errors import Caution

CUDNN = {"benchmark": False, "deterministic": True, "allow_tf32": False}
"""``allow_tf32`` is on by default; float32 would not be what the protocol says."""
MOST_WARNINGS = 20


@contextmanager
def torch_settings(seed: int = 0) -> Iterator[None]:
    """Compute reproducibly inside, from a seed for what draws globally, and leave the process as it was."""
    with settings_kept(), seeded(seed):
        for name, value in CUDNN.items():
            setattr(torch.backends.cudnn, name, value)
        yield


@contextmanager
def warnings_heard() -> Iterator[list[str]]:
    """Collect the warnings of libraries and plug-ins instead of showing them; our own cautions are shown."""
    heard: list[str] = []
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def hear(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            text = f"{category.__name__}: {message}"
            if issubclass(category, Caution):
                shown(message, category, *where, **more)
            elif text not in heard and len(heard) < MOST_WARNINGS:
                heard.append(text)

        warnings.showwarning = hear
        yield heard
