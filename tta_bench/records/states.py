# SPDX-License-Identifier: Apache-2.0
"""The last state of a cell under way, beside its records, so that it resumes in the middle of its stream."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable

from tta_bench.engine.ports import SavedState
from tta_bench.records.files import Files
from tta_bench.records.parts import intact_parts

SHARE = 0.05
"""Share of a cell's time that may go into keeping states: large ones are kept less often."""
_STATE = re.compile(r"state-(\d{5,})\.safetensors")


class StateFiles:
    """States of one cell under way; a new one is there before the old one goes.

    Args:
        files: Files of the store.
        cell: Cell id.
        clock: Monotonic seconds.
    """

    def __init__(self, files: Files, cell: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._files, self._cell, self._clock = files, cell, clock
        self._offered: tuple[int, Callable[[], bytes | None]] | None = None
        self._next = -math.inf

    def offer(self, rows: int, dump: Callable[[], bytes | None]) -> None:
        """Note the state that the first ``rows`` rows led to."""
        self._offered = rows, dump

    def keep(self, *, now: bool = False) -> None:
        """Write the state that was offered last, if the share of time allows it or it must be ``now``.

        Raises:
            StoreError: If it cannot be written.
        """
        began = self._clock()
        if self._offered is None or (began < self._next and not now):
            return
        (rows, dump), self._offered = self._offered, None
        content = dump()
        if content is None:
            return
        self._files.write(f"cells/{self._cell}/{_name(rows)}", content)
        self.remove(but=rows)
        ended = self._clock()
        self._next = ended + (ended - began) / SHARE

    def remove(self, but: int = 0) -> None:
        """Remove all states of the cell but the one that the first ``but`` rows led to."""
        for name in _names(self._files, self._cell):
            if name != _name(but):
                self._files.remove(f"cells/{self._cell}/{name}")


def _name(rows: int) -> str:
    return f"state-{rows:05d}.safetensors"


def _names(files: Files, cell: str) -> list[str]:
    return [name for name in files.names(f"cells/{cell}") if _STATE.fullmatch(name)]


def last_state(files: Files, cell: str) -> SavedState | None:
    """Return the last state that rows led to which are intact, None where there is none."""
    found = {int(name[6:-12]): name for name in _names(files, cell)}
    borders, rows = set(), 0
    for part in intact_parts(files, cell) if found else ():
        rows += part.rows
        borders.add(rows)
    usable = sorted(found.keys() & borders)
    if not usable:
        return None
    content = files.read(f"cells/{cell}/{found[usable[-1]]}")
    return None if content is None else SavedState(usable[-1], content)
