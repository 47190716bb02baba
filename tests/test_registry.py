# SPDX-License-Identifier: Apache-2.0
"""Entry points: found without an import, loaded by name, refused with one clear sentence."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest

from tta_bench import registry
from tta_bench.errors import PluginError, UnknownNameError


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Install packages that consist of one module each; return the function that does so."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def install(name, module, text, **points):
        (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8"
        )
        lines = ["[tta_bench.methods]", *(f"{key} = {value}" for key, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
        registry._packages.cache_clear()

    yield install
    registry._packages.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("plug_"):
            del sys.modules[name]


def test_built_in_methods_are_found_by_name_in_order():
    found = registry.registered("methods")
    assert {"source", "norm", "tent"} <= found.keys()
    assert list(found) == sorted(found)


def test_a_package_is_found_listed_and_loaded(packages):
    packages(
        "plug-a", "plug_a", '"""Doc."""\nclass A:\n    """Do a thing.\n\n    More."""\n', thing="plug_a:A"
    )
    point = registry.registered("methods")["thing"]
    assert registry.owner(point) == "plug-a"
    assert registry.summary(point) == "Do a thing."
    assert "plug_a" not in sys.modules
    assert registry.load("methods", "thing").__name__ == "A"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"unknown method 'tnet'; did you mean 'tent'.*\?.*tta-bench list"
    ):
        registry.load("methods", "tnet")
    with pytest.raises(UnknownNameError, match=r"known: .*clip"):
        registry.load("methods", "zzzzzzzz")


def test_one_name_for_two_objects_is_refused_with_both_owners(packages):
    packages("plug-a", "plug_a", "class A: ...", thing="plug_a:A")
    packages("plug-b", "plug_b", "class B: ...", thing="plug_b:B")
    with pytest.raises(PluginError, match=r"registered twice, by plug-[ab] .* and by plug-[ab]"):
        registry.registered("methods")


def test_the_same_object_twice_is_no_conflict(packages):
    packages("plug-a", "plug_a", "class A: ...", thing="plug_a:A")
    packages("plug-b", "plug_b", "", thing="plug_a:A")
    assert registry.load("methods", "thing").__name__ == "A"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("class B: ...", "AttributeError: "),
        ("class A(:", "SyntaxError: "),
        ("class A(Missing): ...", "NameError: name 'Missing' is not defined"),
        ("raise RuntimeError('no licence file')", "RuntimeError: no licence file"),
        ("x = {}['key']", "KeyError: 'key'"),
    ],
)
def test_a_broken_package_is_named_with_its_error(packages, text, told):
    packages("plug-a", "plug_a", text, thing="plug_a:A")
    with pytest.raises(PluginError) as caught:
        registry.load("methods", "thing")
    assert "method 'thing' of plug-a (plug_a:A) cannot be imported: " in str(caught.value)
    assert told in str(caught.value)
    assert caught.value.__cause__ is not None


def test_the_summary_of_a_missing_module_says_so():
    assert "no module" in registry.summary(EntryPoint("x", "no_such_module:X", "tta_bench.methods"))
    assert "cannot be imported" in registry.summary(EntryPoint("x", "no_such.module:X", "tta_bench.methods"))


def test_a_file_is_imported_as_a_module_of_its_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("value = 3", encoding="utf-8")
    assert registry.load_file(file).value == 3


OWN = "class Own(Exception): ...\nraise Own('no\\nluck')"


@pytest.mark.parametrize(
    "text", ["import no_such_module", "1 / 0", "class A(:", "raise OSError('disk')", "raise SystemExit", OWN]
)
def test_a_broken_file_is_named_and_forgotten(tmp_path, text):
    file = tmp_path / "broken_file.py"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(PluginError, match=r"broken_file\.py cannot be imported: \w+") as caught:
        registry.load_file(file)
    assert "\n" not in str(caught.value)
    assert not [name for name in sys.modules if name.endswith("broken_file")]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PluginError, match="which does not exist"):
        registry.load_file(tmp_path / "nothing.py")
    (tmp_path / "text.txt").write_text("", encoding="utf-8")
    with pytest.raises(PluginError, match=r"ending in \.py"):
        registry.load_file(tmp_path / "text.txt")
