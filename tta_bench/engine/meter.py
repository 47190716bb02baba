# SPDX-License-Identifier: Apache-2.0
"""Synchronised clocks for the phases of a step, and its peak memory on the CPU."""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tta_bench.engine.devices import MIB, synchronise

MEMORY_EVENT = re.compile(r'\{[^{}]*"name": "\[memory\]"[^{}]*(?:\{[^{}]*\}[^{}]*)?\}')
PHASES = ("view", "encode", "adapt", "predict")


class Meter:
    """Seconds per phase of the step under way.

    A clock starts and stops only after the device has finished what was asked of it before.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the phase."""
        synchronise(self.device)
        start = time.perf_counter()
        try:
            yield
        finally:
            synchronise(self.device)
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def charge(self, name: str, seconds: float) -> None:
        """Add time that was measured elsewhere to a phase."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def so_far(self, name: str) -> float:
        """Return the seconds of a phase since the last `take`."""
        return self._seconds.get(name, 0.0)

    def take(self) -> dict[str, float]:
        """Return the seconds of each phase since the last call, and start again from zero."""
        taken, self._seconds = self._seconds, {}
        return taken


def cpu_peak(work: Callable[[], object]) -> float:
    """Run ``work`` under the profiler and return the peak MiB of tensors above what was there before.

    It is the running sum of the profiler's memory events. Scratch memory that the mathematics library takes
    from the system directly is not seen. A profiled step is slower, so it is never timed.
    """
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    with _silent():
        profiler.start()
    try:
        work()
    finally:
        with _silent():
            profiler.stop()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        with _silent():
            profiler.export_chrome_trace(str(path))
        return _peak_of(path.read_text(encoding="utf-8")) / MIB


def _peak_of(trace: str) -> float:
    """Return the peak of the running sum of a trace's memory events, bytes.

    Only these events are parsed: a trace holds one event for every operation as well.
    """
    events = [json.loads(found) for found in MEMORY_EVENT.findall(trace)]
    running = peak = 0
    for event in sorted(events, key=lambda event: float(event["ts"])):
        if event["args"]["Device Type"] == 0:
            running += int(event["args"]["Bytes"])
            peak = max(peak, running)
    return float(peak)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the profiler's own log lines off standard error; they come from below Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def peak_rss_mib() -> float:
    """Return the peak resident memory of this process, MiB.

    On Linux it is read from the kernel's status file: the figure of ``getrusage`` still holds the peak of the
    process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        match = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if match:
            return int(match[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)
