# SPDX-License-Identifier: Apache-2.0
"""Process-wide settings: set as a run needs them, the same for every cell, and restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tta_bench.checks.guard import seeded, settings_kept

CUDNN = {"benchmark": False, "deterministic": True, "allow_tf32": False}
"""``allow_tf32`` is on by default; float32 would not be what the protocol says."""


@contextmanager
def torch_settings(seed: int = 0) -> Iterator[None]:
    """Compute reproducibly inside, from a seed for what draws globally, and leave the process as it was."""
    with settings_kept(), seeded(seed):
        for name, value in CUDNN.items():
            setattr(torch.backends.cudnn, name, value)
        yield


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
