# SPDX-License-Identifier: Apache-2.0
"""The devices that torch computes on: which one a name stands for, when it is done, and what memory it tells of."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.optim import widest

MIB = 2**20
CALLED = {"cuda": "a CUDA", "mps": "an Apple", "xpu": "an Intel"}
PEAKS = ("cuda", "xpu")
"""Kinds of devices whose allocators keep the peak."""


def resolve_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xpu`` or ``xpu:1`` stands for here.

    Raises:
        BadInputError: If it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cpu":
        return device
    count = count_devices(device.type)
    if not count:
        raise BadInputError(
            f"device {name} needs {CALLED[device.type]} device, and torch finds none here; use device cpu",
            options=("device",),
        )
    if (device.index or 0) >= count:
        there = ", ".join(f"{device.type}:{index}" for index in range(count))
        raise BadInputError(
            f"device {name} is not one of those that torch finds here ({there}); choose one of them, or cpu",
            options=("device",),
        )
    return device


def run_device(name: str, precision: str) -> str:
    """Return the device of a run as torch calls it.

    Raises:
        BadInputError: If it is not there.
        IncompatibleError: If it does not have the precision.
    """
    device = resolve_device(name)
    if precision == "float64" and widest(device) != torch.float64:
        raise IncompatibleError(
            f"device {device} has no float64; choose precision float32 or device cpu",
            options=("precision", "device"),
        )
    return str(device)


def _module(kind: str) -> Any:
    """Return the module of torch for a kind of device."""
    return getattr(torch, kind)


def count_devices(kind: str) -> int:
    """Return how many devices of a kind, ``cuda``, ``mps`` or ``xpu``, torch finds here."""
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = _module(kind)
    return int(module.device_count()) if module.is_available() else 0


def chosen(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which a numbered device is the one that code without a number means."""
    numbered = device.type in PEAKS and device.index is not None
    context: AbstractContextManager[Any] = _module(device.type).device(device) if numbered else nullcontext()
    return context


def synchronise(device: torch.device) -> None:
    """Wait until a device has finished what it was asked for."""
    if device.type in PEAKS:
        _module(device.type).synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def tells_peaks(device: torch.device) -> bool:
    """Return whether the device's own allocator tells the peak memory of a step; mps does not."""
    return device.type in PEAKS


def device_peak(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Run ``work`` and return the peak MiB allocated above what was allocated before, and the absolute peak."""
    module = _module(device.type)
    module.synchronize(device)
    module.reset_peak_memory_stats(device)
    before = module.memory_allocated(device)
    work()
    module.synchronize(device)
    peak = module.max_memory_allocated(device)
    return (peak - before) / MIB, peak / MIB


def device_name(device: torch.device) -> str | None:
    """Return the model of a device that has a name of its own; None for the processor and what is part of it."""
    return str(_module(device.type).get_device_name(device)) if device.type in PEAKS else None


def device_memory(device: torch.device) -> int | None:
    """Return the bytes of a device's own memory; on mps what Metal recommends at most; None for the CPU."""
    if device.type in PEAKS:
        return int(_module(device.type).get_device_properties(device).total_memory)
    return int(torch.mps.recommended_max_memory()) if device.type == "mps" else None
