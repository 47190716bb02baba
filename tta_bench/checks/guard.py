# SPDX-License-Identifier: Apache-2.0
"""Keep what a method under test does to the process away from everything else in it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global random generators inside this context and put them back after it."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


@contextmanager
def guarded() -> Iterator[None]:
    """Switch gradients on inside this context, and undo after it what a method changed in the process."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    deterministic, precision = (
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
    )
    flags = torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    anomaly, onednn = torch.is_anomaly_enabled(), torch.backends.mkldnn.enabled
    try:
        with seeded(0), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.set_float32_matmul_precision(precision)
        torch.autograd.set_detect_anomaly(anomaly)
        cudnn = torch.backends.cudnn
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic = flags
        torch.backends.mkldnn.enabled = onednn
