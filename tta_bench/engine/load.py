# SPDX-License-Identifier: Apache-2.0
"""Load of the machine while a cell is timed: load average, waiting for a processor, and the GPU's clock."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from pathlib import Path

import torch

from tta_bench.spec.manifest import Load

WAITING = Path("/proc/self/schedstat")
"""Linux' account of this process' main thread: nanoseconds that it ran, and that it was ready and waited."""
QUERY = (
    "clocks.sm,clocks.max.sm,clocks_throttle_reasons.hw_slowdown,clocks_throttle_reasons.sw_thermal_slowdown"
)
QUERY_SECONDS = 5.0


class LoadWatch:
    """Notes the load of the machine from its making to `taken`.

    Args:
        device: That computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._before, self._account = device, load_average(), _account()

    def taken(self) -> Load:
        """Return the load since this was made."""
        ran, waited = (after - before for after, before in zip(_account(), self._account, strict=True))
        share = waited / (ran + waited) if ran + waited > 0 else None
        clock, most, slowed = gpu_clock(self._device) if self._device.type == "cuda" else (None, None, None)
        return Load(self._before, load_average(), share, clock, most, slowed)


def load_average() -> float | None:
    """Return the processes that were ready to run over the last minute, None where the system does not tell."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _account() -> tuple[int, int]:
    """Return the nanoseconds that the main thread ran, and that it waited for a processor; zeros where not told."""
    try:
        ran, waited, *_ = WAITING.read_text(encoding="ascii").split()
        return int(ran), int(waited)
    except (OSError, ValueError):
        return 0, 0


def gpu_clock(device: torch.device) -> tuple[int | None, int | None, bool | None]:
    """Return the clock of a GPU and its highest one in MHz, and whether heat or power slows it; None where not told."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None, None, None
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    which = [f"--id=GPU-{uuid}"] if uuid else []
    command = [tool, *which, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=QUERY_SECONDS
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None, None, None
    return read_clock(told)


def read_clock(told: str) -> tuple[int | None, int | None, bool | None]:
    """Return clock, highest clock and whether it is slowed from the first line that nvidia-smi gives."""
    row = [cell.strip() for cell in next(csv.reader(told.splitlines()), [])]
    if len(row) != QUERY.count(",") + 1:
        return None, None, None
    clock, most = (int(cell) if cell.isdecimal() else None for cell in row[:2])
    reasons = {cell.lower() for cell in row[2:]}
    slowed = "active" in reasons if reasons <= {"active", "not active"} else None
    return clock, most, slowed
