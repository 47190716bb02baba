# SPDX-License-Identifier: Apache-2.0
"""Stubs for torch's queries about a pretended device: its properties, generators, streams and graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Kind = Literal["cuda", "xpu", "mps"]
MEMORY = 16 * 2**30
NAME = "a double"


@contextmanager
def pretended_torch(kind: Kind, device: torch.device) -> Iterator[None]:
    """Let torch say inside this context that there is one device of a kind."""

    class Autocast(torch.autocast):
        """Round the products where they are computed."""

        def __init__(self, device_type: str, *args: Any, **options: Any) -> None:
            super().__init__("cpu" if device_type == kind else device_type, *args, **options)

    with ExitStack() as stack:

        def replace(place: Any, name: str, value: Any) -> None:
            if hasattr(place, name):
                stack.enter_context(mock.patch.object(place, name, value))

        replace(torch, "Generator", Generator)
        for where in (torch, torch.amp):
            replace(where, "autocast", Autocast)
        # torch.accelerator stands for whatever device there is; it came with torch 2.6
        for name, value in _answers(device).items():
            for place in (getattr(torch, kind), getattr(torch, "accelerator", None)):
                replace(place, name, value)
        if kind == "mps":
            replace(torch.backends.mps, "is_available", lambda: True)
        yield


def _answers(device: torch.device) -> dict[str, Any]:
    """Return what the module of a device is asked by programs, by name."""
    properties = SimpleNamespace(name=NAME, total_memory=MEMORY, major=9, minor=0, multi_processor_count=1)

    def nothing(*arguments: Any, **options: Any) -> None:
        return None

    def zero(*arguments: Any, **options: Any) -> int:
        return 0

    silent = ("empty_cache", "init", "manual_seed", "manual_seed_all", "reset_peak_memory_stats", "set_device",
              "set_rng_state", "set_rng_state_all", "synchronize")  # fmt: skip
    empty = ("current_allocated_memory", "current_device", "current_device_index", "driver_allocated_memory",
             "max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved")  # fmt: skip
    return {
        **dict.fromkeys(silent, nothing),
        **dict.fromkeys(empty, zero),
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_current_stream_capturing": lambda: bool(_CAPTURING),
        "is_bf16_supported": lambda *a, **k: True,
        "device_count": lambda: 1,
        "current_accelerator": lambda *a, **k: torch.device(device.type),
        "get_device_name": lambda *a: NAME,
        "get_device_properties": lambda *a: properties,
        "get_device_capability": lambda *a: (9, 0),
        "mem_get_info": lambda *a: (MEMORY, MEMORY),
        "recommended_max_memory": lambda: MEMORY,
        "get_rng_state": lambda *a: torch.zeros(16, dtype=torch.uint8),
        "get_rng_state_all": lambda: [],
        "current_stream": Stream,
        "Stream": Stream,
        "stream": nullcontext,
        "device": nullcontext,
        "CUDAGraph": Graph,
        "graph": capture,
    }


class Generator(torch.Generator):
    """A generator that says it belongs to the device it was made for."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        """Return a generator of the CPU's numbers."""
        made = super().__new__(cls)
        made._place = torch.device(device)
        return made

    _place: torch.device

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The device that it was made for."""
        return self._place


class Stream:
    """A stream of a device that does everything in turn anyway."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def wait_stream(self, other: Any) -> None:
        """Wait for another stream, which has nothing left to do."""

    def is_capturing(self) -> bool:
        """Return whether a graph is captured."""
        return bool(_CAPTURING)

    def synchronize(self) -> None:
        """Wait for what is done already."""


class Graph:
    """Operations recorded with the tensors and numbers of their capture, to be repeated on the same memory."""

    def __init__(self) -> None:
        self._calls: list[tuple[Any, Sequence[Any], dict[str, Any], Any]] = []
        self._before: list[tuple[Tensor, Tensor]] = []

    def record(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operation, and keep what it was given and what it wrote over."""
        if func.overloadpacket.__name__ == "_local_scalar_dense":
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        arguments = func._schema.arguments
        given = [args[i] if i < len(args) else kwargs.get(one.name) for i, one in enumerate(arguments)]
        for one, value in zip(arguments, given, strict=True):
            if one.alias_info is not None and one.alias_info.is_write:
                self._before += [(t, t.clone()) for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]
        made = func(*args, **kwargs)
        self._calls.append((func, args, kwargs, made))
        return made

    def undo(self) -> None:
        """Put back what was written during the capture, which runs nothing in reality."""
        for tensor, value in reversed(self._before):
            tensor.copy_(value)
        self._before.clear()

    def replay(self) -> None:
        """Run all operations again; results go where those of the capture lie."""
        with torch.no_grad():
            for func, args, kwargs, made in self._calls:
                again = func(*args, **kwargs)
                for old, new in zip(pytree.tree_leaves(made), pytree.tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


_CAPTURING: list[Graph] = []


@contextmanager
def capture(graph: Graph, *arguments: Any, **options: Any) -> Iterator[None]:
    """Record inside this context what a graph repeats."""
    _CAPTURING.append(graph)
    try:
        yield
    finally:
        _CAPTURING.pop()
        graph.undo()


def captured(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run an operation, into a graph where one is captured."""
    if _CAPTURING:
        return _CAPTURING[-1].record(func, args, kwargs)
    return func(*args, **kwargs)
