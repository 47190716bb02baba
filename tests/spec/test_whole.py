# SPDX-License-Identifier: Apache-2.0
"""Files of results are there whole or not at all, whatever ends the writing."""

import ast
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tta_bench.reports import method_pages
from tta_bench.spec.whole import whole, write_whole
from tta_bench.studies import apm_files
from tta_bench.studies.apm import Point
from tta_bench.studies.islands import files as island_files
from tta_bench.studies.islands.dense import DenseRow

PACKAGE = Path(__file__).parents[2] / "tta_bench"


class FullError(Exception):
    pass


def fail(*arguments):
    raise FullError


def test_a_file_gets_its_name_when_it_is_whole(tmp_path, monkeypatch):
    path, events, real = tmp_path / "a.csv", [], os.fsync

    def sync(number):
        events.append(path.exists())
        real(number)

    monkeypatch.setattr(os, "fsync", sync)
    write_whole(path, "äöü\r\n")
    assert path.read_bytes() == "äöü\r\n".encode()
    assert events == [False, True], "the file before its name, the name after it"
    write_whole(path, b"other")
    assert [one.name for one in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("before", [None, b"old"])
def test_what_was_there_stays_where_writing_fails(tmp_path, before):
    path = tmp_path / "a.csv"
    if before is not None:
        path.write_bytes(before)

    def write():
        with whole(path) as part:
            part.write_text("half")
            raise FullError

    with pytest.raises(FullError):
        write()
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == (
        [] if before is None else [("a.csv", before)]
    )


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    code = f"""
        import os, signal, pathlib
        from tta_bench.spec.whole import whole
        with whole(pathlib.Path({str(path)!r})) as part:
            part.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


WRITERS = {
    "study": (lambda path: apm_files.write_csv([BadPoint()], path), "study.csv"),
    "islands": (
        lambda path: island_files.write_rows([DenseRow(*[Unwritable()] * len(DenseRow._fields))], path),
        "a.csv",
    ),
    "pages": (lambda path: method_pages.write_pages(path.parent), "README.md"),
}


class Unwritable:
    def __str__(self):
        raise FullError


class BadPoint:
    _fields = Point._fields

    def _asdict(self):
        return {name: Unwritable() for name in self._fields}


@pytest.mark.parametrize("name", WRITERS)
def test_files_of_results_are_replaced_whole_or_not_at_all(name, tmp_path, monkeypatch):
    write, file = WRITERS[name]
    (tmp_path / file).write_text("old")
    monkeypatch.setattr(method_pages, "page", lambda name, method: "text")
    monkeypatch.setattr(method_pages, "index", lambda methods: "text")
    if name == "pages":
        monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(FullError):
        write(tmp_path / file)
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {file: "old"}


def test_no_module_writes_a_file_of_results_in_place():
    """Only these write under another name themselves, add line by line to a log, or write what is no result."""
    own = {
        "spec/whole.py", "records/files.py", "data/acquire/archive.py", "data/acquire/download.py",
        "data/corruptions/copying.py", "engine/initial.py", "engine/meter.py", "models/open_clip_models.py",
        "engine/executors/on_slurm.py",
    }  # fmt: skip
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                modes = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                opens = called == "open" and any(mode in ("w", "wb", "a", "ab", "x") for mode in modes)
                on_part = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "part"
                if (called in ("write_text", "write_bytes") or opens) and not on_part:
                    found.add(path.relative_to(PACKAGE).as_posix())
    assert found <= own
