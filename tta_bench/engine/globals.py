# SPDX-License-Identifier: Apache-2.0
"""The global settings of torch that a run needs, put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

CUDNN = {"benchmark": False, "deterministic": True, "allow_tf32": False}
"""``allow_tf32`` is on by default; float32 would not be what the protocol says."""


@contextmanager
def torch_settings() -> Iterator[None]:
    """Compute reproducibly inside, and leave torch's settings, grad mode and random state as they were."""
    cudnn = torch.backends.cudnn
    before = {name: getattr(cudnn, name) for name in CUDNN}
    threads, dtype, grad = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    random = torch.get_rng_state()
    for name, value in CUDNN.items():
        setattr(cudnn, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(cudnn, name, value)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        torch.set_rng_state(random)
