# SPDX-License-Identifier: Apache-2.0
"""For GPUs only: an iteration captured once and replayed, and TensorFloat-32 products for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Seen = tuple[Tensor, Tensor]


class Replay:
    """Run an iteration that works on the same tensors every time, from the third time on as one CUDA graph.

    The first two runs warm up what the libraries allocate on first use. An iteration is some sixty kernels, each
    too short to hide its launch; a graph launches them together. Its results are written over by the next run.

    Args:
        iterate: Takes the number of updates before it, which it may use only where it is not captured.
    """

    def __init__(self, iterate: Callable[[int], Seen]) -> None:
        self._iterate, self._runs = iterate, 0
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._seen: Seen | None = None

    def __call__(self, done: int) -> Seen:
        """Run one iteration."""
        self._runs += 1
        if self._runs <= 2:
            return self._aside(done)
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._seen = self._iterate(done)
        self._graph.replay()
        assert self._seen is not None
        return self._seen

    def _aside(self, done: int) -> Seen:
        """Run on a stream of its own, as capture wants of what goes before it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            seen = self._iterate(done)
        torch.cuda.current_stream().wait_stream(self._stream)
        return seen


@contextmanager
def tensor_float(*, wanted: bool) -> Iterator[None]:
    """Let float32 products round their inputs to TensorFloat-32 inside this context."""
    before = torch.get_float32_matmul_precision()
    if wanted:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        if wanted:
            torch.set_float32_matmul_precision(before)
