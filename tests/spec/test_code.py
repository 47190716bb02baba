# SPDX-License-Identifier: Apache-2.0
"""The hash of code covers what a plug-in reaches, and nothing that a version tells."""

import importlib
import sys

import pytest

from tta_bench.hyperparameters import methods_in_file, source_hash
from tta_bench.spec.code import module_texts

METHOD = '''
from dataclasses import dataclass
from typing import ClassVar

import helper_a
import torch
from tta_bench.method import Adapted, Card, Method


@dataclass(frozen=True)
class Mine(Method):
    """Predict as the helper says."""

    card: ClassVar[Card] = Card(paper="")

    def adapt(self, source, state, inputs):
        import helper_late
        return Adapted(state, helper_a.SIGN * source.logits(inputs.images))
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(METHOD)
    (tmp_path / "helper_a.py").write_text("from helper_pack.inner import SIGN\n")
    (tmp_path / "helper_late.py").write_text("X = 1\n")
    (tmp_path / "helper_pack").mkdir()
    (tmp_path / "helper_pack/__init__.py").write_text("")
    (tmp_path / "helper_pack/inner.py").write_text("SIGN = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    forget()


def forget():
    source_hash.cache_clear()
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.startswith("helper_")]:
        del sys.modules[name]


def hashed(folder):
    forget()
    (cls,) = methods_in_file(folder / "mine.py").values()
    return source_hash(cls)


@pytest.mark.parametrize(
    "name", ["helper_a.py", "helper_late.py", "helper_pack/inner.py", "helper_pack/__init__.py"]
)
def test_a_neighbour_that_is_edited_changes_the_hash(folder, name):
    before = hashed(folder)
    assert hashed(folder) == before
    path = folder / name
    path.write_text(path.read_text() + "Y = 2\n")
    assert hashed(folder) != before


def test_what_is_installed_is_not_part_of_it(folder):
    hashed(folder)
    names = set(module_texts("helper_a"))
    assert names == {"helper_a", "helper_pack", "helper_pack.inner"}


def test_the_code_of_plug_in_models_and_datasets_is_part_of_a_cell(tmp_path, monkeypatch):
    from tta_bench import registry
    from tta_bench.engine.live import Live
    from tta_bench.engine.planning import _plugin_code

    (tmp_path / "helper_data.py").write_text("MINE = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = registry.EntryPoint("mine", "helper_data:MINE", "tta_bench.datasets")
    known = {group: dict(registry.registered(group)) for group in ("datasets", "models")}
    known["datasets"]["mine"] = known["models"]["mine"] = point
    monkeypatch.setattr(registry, "registered", lambda group: known[group])
    first = _plugin_code("mine/x", "mine:sub", Live())
    assert first.keys() == {"model", "dataset"}
    (tmp_path / "helper_data.py").write_text("MINE = 1\n")
    forget()
    second = _plugin_code("mine/x", "mine:sub", Live())
    assert first["dataset"] != second["dataset"]
    assert first["model"] != second["model"]
    assert _plugin_code("timm/resnet18", "cifar10-c", Live()) == {}
    forget()
