# SPDX-License-Identifier: Apache-2.0
"""Which process writes a file, and whether it still runs."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import uuid
from functools import lru_cache
from pathlib import Path

TEMPORARY = ".tmp-"
"""Prefix of files that are being written; whatever carries it after a crash is ignored."""
_NAME = re.compile(rf"{re.escape(TEMPORARY)}([0-9a-f]{{8}})\.(\d+)\.(\d*)-[0-9a-f]+-.*")


def temporary_name(name: str) -> str:
    """Return a new temporary name for a file, which tells the host and the process that write it."""
    return f"{TEMPORARY}{_host()}.{os.getpid()}.{born(os.getpid())}-{uuid.uuid4().hex[:12]}-{name}"


def abandoned(name: str) -> bool:
    """Return whether a temporary name is that of a process of this host that has ended."""
    match = _NAME.fullmatch(name)
    if match is None or match[1] != _host():
        return False
    return not (runs(int(match[2])) and born(int(match[2])) == match[3])


def runs(pid: int) -> bool:
    """Return whether a process runs; where nobody can tell, it does not."""
    if os.name != "posix":  # elsewhere the signal 0 is no question
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def born(pid: int) -> str:
    """Return when a process began, in ticks of the kernel, so that a process number used again is noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


@lru_cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
