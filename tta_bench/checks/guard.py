# SPDX-License-Identifier: Apache-2.0
"""Keep what a method under test does to the process away from everything else in it."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global random generators inside this context and put them back after it."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # it takes 32 bits
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


class Place(NamedTuple):
    """The process-wide settings that code can change, as they were."""

    settings: tuple[Any, ...]
    folder: str | None
    streams: tuple[Any, Any]


_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda both: torch.use_deterministic_algorithms(both[0], warn_only=both[1]),
    ),
    (
        lambda: torch.get_default_device().type,
        lambda kind: torch.set_default_device(None if kind == "cpu" else kind),
    ),
    (lambda: torch.backends.mkldnn.enabled, lambda on: setattr(torch.backends.mkldnn, "enabled", on)),
    *(
        (partial(getattr, torch.backends.cudnn, name), partial(setattr, torch.backends.cudnn, name))
        for name in ("enabled", "benchmark", "deterministic", "allow_tf32")
    ),
)
"""The getter and setter of each global setting of torch; random generators are for `seeded`."""


def _place() -> Place:
    try:
        folder = os.getcwd()
    except OSError:  # it was deleted
        folder = None
    return Place(tuple(read() for read, _ in _SETTINGS), folder, (sys.stdout, sys.stderr))


@contextmanager
def settings_kept() -> Iterator[None]:
    """Put back after this context what is global in torch, the working directory, and the standard streams."""
    before = _place()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before.streams
        after = _place()
        for (_, put), old, new in zip(_SETTINGS, before.settings, after.settings, strict=True):
            if old != new:
                put(old)
        if before.folder is not None and after.folder != before.folder:
            os.chdir(before.folder)


@contextmanager
def guarded() -> Iterator[None]:
    """Switch gradients on inside this context, and undo after it what a method changed in the process."""
    with settings_kept(), seeded(0), torch.enable_grad():
        yield
