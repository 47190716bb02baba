# SPDX-License-Identifier: Apache-2.0
"""Make batches ahead of time in worker processes; the bits are the same whatever their number."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from tta_bench.errors import TTABenchError

PREFETCH = 2
_PINNED: ContextVar[bool] = ContextVar("pinned", default=False)


@contextmanager
def pinned_memory(*, wanted: bool) -> Iterator[None]:
    """Let batches that are made inside this context lie in page-locked memory, from which a CUDA device copies."""
    token = _PINNED.set(wanted)
    try:
        yield
    finally:
        _PINNED.reset(token)


class _Made(Dataset[Any]):
    """One item per chunk of positions; a user's error is handed over as a value, so that it stays one sentence.

    So are warnings.
    """

    def __init__(self, make: Callable[[Sequence[int]], Any], chunks: Sequence[Sequence[int]]) -> None:
        self.make, self.chunks = make, chunks

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> tuple[Any, list[tuple[str, type[Warning]]]]:
        with warnings.catch_warnings(record=True) as heard:
            try:
                made = self.make(self.chunks[index])
            except TTABenchError as error:
                made = error
        return made, [(str(one.message), one.category) for one in heard]


def prefetch(
    make: Callable[[Sequence[int]], Any], chunks: Sequence[Sequence[int]], workers: int
) -> Iterator[Any]:
    """Yield ``make(chunk)`` of every chunk in order, made ahead by worker processes.

    Tensors come back through shared memory, pinned where `pinned_memory` asks for it. Each chunk is made by one
    process, and nothing of it depends on which.

    Args:
        make: Turns positions into a batch; must not use global random numbers.
        chunks: The positions of each batch.
        workers: How many processes; 0 makes the batches in this one when they are asked for.

    Raises:
        TTABenchError: What `make` raises, as it raised it.
    """
    workers = min(workers, len(chunks))
    if workers == 0:
        yield from map(make, chunks)
        return
    loader = DataLoader(
        _Made(make, chunks),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCH,
        pin_memory=_PINNED.get(),
        generator=torch.Generator().manual_seed(0),
    )
    for made, heard in loader:
        for message, category in heard:  # of the other process, which nobody listens to
            warnings.warn(message, category, stacklevel=2)
        if isinstance(made, TTABenchError):
            raise made
        yield made
