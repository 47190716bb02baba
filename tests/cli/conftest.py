# SPDX-License-Identifier: Apache-2.0
"""Run the command line in this process, as its console script would."""

from typing import NamedTuple

import pytest

from tta_bench.cli import main


class Done(NamedTuple):
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def tta_bench(monkeypatch, capsys):
    """Return a function that runs ``tta-bench`` with arguments."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["tta-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return Done(stopped.value.code or 0, captured.out, captured.err)

    return run
