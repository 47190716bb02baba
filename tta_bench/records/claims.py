# SPDX-License-Identifier: Apache-2.0
"""Who computes what all processes share: one claims it, the others wait for the result."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tta_bench.records.files import Files
from tta_bench.records.process import born, runs

T = TypeVar("T")
WAIT_SECONDS = 600.0
"""Seconds to wait for a claim of another host; whether a process of this host still runs is known."""
POLL_SECONDS = 0.05


def found_or_claimed(
    files: Files,
    name: str,
    find: Callable[[], T | None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T | None:
    """Return what ``find`` finds; None if the caller holds the claim and is to compute it.

    Two processes that claim in the same instant both compute, and write the same: a claim saves time, and nothing
    depends on it.

    Args:
        files: Files of the store.
        name: Of the claim's file.
        find: Returns the result, None as long as there is none.
        clock: Monotonic seconds.
        sleep: Waits so many seconds.
    """
    began, pause = clock(), POLL_SECONDS
    while (found := find()) is None:
        if not _held(files, name) or clock() - began > WAIT_SECONDS:
            files.write(name, (json.dumps(_own()) + "\n").encode())
            return None
        sleep(pause)
        pause = min(2 * pause, 2.0)
    return found


def _held(files: Files, name: str) -> bool:
    """Return whether another process holds the claim and may still run."""
    try:
        other = json.loads(files.read(name) or b"{}")
    except ValueError:
        return False
    if not isinstance(other, dict) or not other:
        return False
    if other.get("host") != socket.gethostname():
        return True
    pid = other.get("pid")
    return isinstance(pid, int) and pid != os.getpid() and runs(pid) and born(pid) == other.get("born")


def _own() -> dict[str, Any]:
    return {"pid": os.getpid(), "born": born(os.getpid()), "host": socket.gethostname()}
