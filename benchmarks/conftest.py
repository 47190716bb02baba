# SPDX-License-Identifier: Apache-2.0
"""One summary line per goal, which scripts can read: ``RATIO name value goal met|missed``."""

import pytest

_LINES: list[str] = []


@pytest.fixture
def goal():
    """Return a function that notes a measured value and its goal, without failing on a missed one."""

    def note(name, value, target, *, at_most=True):
        met = value <= target if at_most else value >= target
        sign = "<=" if at_most else ">="
        _LINES.append(f"RATIO {name} {value:.4g} {sign}{target:g} {'met' if met else 'missed'}")

    return note


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    """Print the lines at the end, where nothing follows them."""
    if _LINES:
        terminalreporter.section("goals")
        for line in _LINES:
            terminalreporter.write_line(line)
