# SPDX-License-Identifier: Apache-2.0
"""Which process writes a cell: a file beside its records, so that two runs of one folder do not mix their rows."""

from __future__ import annotations

import json
import os
import socket
import uuid
from datetime import UTC, datetime

from tta_bench.errors import StoreError
from tta_bench.records.files import Files
from tta_bench.records.process import born, runs

OWNER = "owner.json"


class Owner:
    """The claim of one writer on one cell.

    A claim ends with the process that made it. Of a process on another host nobody can tell whether it still
    runs, so its claim is taken over; it notices at its next part and stops.

    Args:
        files: Files of the store.
        cell: Cell id.

    Raises:
        StoreError: If another process of this host writes the cell.
    """

    def __init__(self, files: Files, cell: str) -> None:
        refuse_other(files, cell)
        self._files, self._cell, self._token = files, cell, uuid.uuid4().hex
        facts = {
            "token": self._token,
            "pid": os.getpid(),
            "born": born(os.getpid()),
            "host": socket.gethostname(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        files.write(_name(cell), (json.dumps(facts) + "\n").encode())

    def check(self) -> None:
        """Check that the cell is still ours.

        Raises:
            StoreError: If another process took it over.
        """
        other = _read(self._files, self._cell)
        if other and other.get("token") != self._token:
            raise StoreError(
                f"cell {self._cell} in {self._files.url} was taken over by process {other.get('pid')} on "
                f"{other.get('host')}; let that one end, or give each process a folder with output=",
                options=("output",),
            )

    def release(self) -> None:
        """Let go of the cell."""
        self._files.remove(_name(self._cell))


def refuse_other(files: Files, cell: str) -> None:
    """Refuse a cell that another process of this host is writing.

    Raises:
        StoreError: With the process and since when.
    """
    other = _read(files, cell)
    pid = other.get("pid")
    if other.get("host") != socket.gethostname() or not isinstance(pid, int) or pid == os.getpid():
        return
    if runs(pid) and born(pid) == other.get("born"):
        raise StoreError(
            f"cell {cell} in {files.url} is being written by process {pid} since {other.get('time')}; wait until it "
            "ends, or choose another run folder with output=",
            options=("output",),
        )


def _name(cell: str) -> str:
    return f"cells/{cell}/{OWNER}"


def _read(files: Files, cell: str) -> dict[str, object]:
    try:
        content = json.loads(files.read(_name(cell)) or b"{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
