# SPDX-License-Identifier: Apache-2.0
"""``python -m tta_bench`` is ``tta-bench``: listen to signals first, then import the command line and run it."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SENTENCE = b"tta-bench: interrupted\n"


def main() -> None:
    """Run the command line; until it is imported nothing is under way, so that a signal ends the process at once."""
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _leave)
    from tta_bench.cli import main as run

    run()


def _leave(number: int, frame: FrameType | None) -> None:
    """End the process: an exception in the middle of an import may be taken for a package that is missing."""
    if sys.stderr is not None:
        os.write(2, SENTENCE)
    os._exit(128 + number)


if __name__ == "__main__":
    main()
