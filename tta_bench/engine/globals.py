# SPDX-License-Identifier: Apache-2.0
"""Process-wide settings: set as a run needs them, the same for every cell, and restored afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

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


class Heard(NamedTuple):
    """Warnings of one cell, each once: those of libraries and plug-ins, and our own cautions."""

    warnings: list[str]
    cautions: list[str]


@contextmanager
def threads_set(threads: int | None) -> Iterator[None]:
    """Compute with so many threads inside, or with as many as before."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def warnings_heard() -> Iterator[Heard]:
    """Collect the warnings of libraries and plug-ins instead of showing them; our own cautions are shown as well."""
    heard = Heard([], [])
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def hear(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            own = issubclass(category, Caution)
            kept, text = (
                (heard.cautions, str(message)) if own else (heard.warnings, f"{category.__name__}: {message}")
            )
            if own:
                shown(message, category, *where, **more)
            if text not in kept and len(kept) < MOST_WARNINGS:
                kept.append(text)

        warnings.showwarning = hear
        yield heard
