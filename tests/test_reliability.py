# SPDX-License-Identifier: Apache-2.0
"""Each fault and each promise that a document names has its test."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def known_tests():
    """The names of all tests."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return {name for text in texts for name in re.findall(r"^def (test_\w+)\(", text, flags=re.MULTILINE)}


@pytest.mark.parametrize("page", ["docs/reliability.md", "SECURITY.md"])
def test_a_document_names_tests_that_exist(page, known_tests):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named - known_tests == set()
    rows = [
        line
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith(("| fault", "| promise"))
    ]
    assert len(rows) >= 8
    assert not [row for row in rows if "`test_" not in row]


def test_the_guide_to_clusters_names_options_that_exist():
    from tta_bench.spec import Controls, Request
    from tta_bench.spec.options import options_of

    text = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
    commands = re.findall(r"^tta-bench run (.*?)(?<!\\)$", text, flags=re.MULTILINE | re.DOTALL)
    known = {
        one.flag.partition("/")[0]
        for cls in (Request, Controls)
        for one in options_of(cls).values()
        if one.flag
    }
    named = {flag for command in commands for flag in re.findall(r"--[a-z-]+", command)}
    assert len(named) >= 8
    assert named - known <= {"--suite", "--dry-run"}
