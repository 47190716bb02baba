# SPDX-License-Identifier: Apache-2.0
"""``tta-bench validate`` on names and files: tables, exit codes and one sentence for bad input."""

from __future__ import annotations

import sys

import pytest

from tta_bench.checks import CHECKS
from tta_bench.cli import main

MINE = """
from dataclasses import dataclass
from tta_bench.adapters.source import Source
from tta_bench.method import Adapted

@dataclass(frozen=True)
class Kept(Source):
    '''Keep every promise.'''

@dataclass(frozen=True)
class Broken(Source):
    '''Store the number of its steps.'''

    weight: float = 1.0

    def adapt(self, source, state, inputs):
        if self.weight:
            object.__setattr__(self, "steps", 1)
        return Adapted(state)
"""
BARE = """
from tta_bench.method import Method

class Bare(Method):
    def adapt(self, source, state, inputs): ...
"""


@pytest.fixture
def validate(monkeypatch, capsys):
    """Return a function that runs the command and gives its exit code, stdout and stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["tta-bench", "validate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return ended.value.code, told.out, told.err

    return call


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE, encoding="utf-8")
    return file


def refused(result, *words):
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("tta-bench: ")
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_a_built_in_method_has_a_row_for_every_check(validate):
    code, out, _ = validate("source")
    assert code == 0
    for check in CHECKS:
        assert check.name in out
    assert "source: " in out
    assert "failed" not in out.splitlines()[-1]


def test_the_methods_of_a_file_are_validated_one_by_one(validate, mine):
    code, out, _ = validate(mine)
    assert code == 1
    last = {
        line.partition(":")[0]: line for line in out.splitlines() if line.startswith(("kept: ", "broken: "))
    }
    assert "failed" not in last["kept"]
    assert "1 failed" in last["broken"]
    assert "self.steps changed during two steps" in out
    assert "source: " not in out


def test_hyper_parameters_reach_the_method(validate, mine):
    code, out, _ = validate(mine, "--set", "broken.weight=0")
    assert code == 0, out


def test_unknown_names_are_answered_with_the_nearest(validate):
    refused(validate("tnet"), "unknown method 'tnet'", "did you mean 'tent'")
    refused(validate("tent", "--set", "lrr=1"), "did you mean 'lr'?")
    refused(validate("tent", "--set", "lr"), "--set must be like lr=1e-4")
    refused(validate("tent", "--set", "lr=fast"), "lr of tent", "'fast'")
    refused(validate("tent", "--preset", "cifar"), "unknown preset of tent 'cifar'")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("class A(:", "SyntaxError"),
        ("raise RuntimeError('no licence file')", "RuntimeError: no licence file"),
        ("x = 1", "defines no method"),
        ("from tta_bench.adapters.source import Source", "defines no method"),
        (BARE, "must be a frozen dataclass"),
        (None, "does not exist"),
    ],
)
def test_a_file_without_a_method_is_refused(validate, tmp_path, text, told):
    file = tmp_path / "theirs.py"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    refused(validate(file), told)
