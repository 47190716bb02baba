# SPDX-License-Identifier: Apache-2.0
"""Initial states from source data: computed once, equal to the bit, and never used where anything differs."""

import json

import pytest
import torch
from tta_bench.adapters.eata import Eata

import tta_bench as tb
from tta_bench.engine.initial import Initial, keep_initial, read_initial

CPU = torch.device("cpu")


@pytest.fixture
def inits(monkeypatch):
    """The calls of EATA's ``init``, which reads source images."""
    calls, init = [], Eata.init

    def counted(self, source, task):
        calls.append(self)
        return init(self, source, task)

    monkeypatch.setattr(Eata, "init", counted)
    return calls


def run(folder, **options):
    settings = options.pop("settings", ("samples=32",))
    return tb.evaluate(
        "eata", "pocket-c", corruptions=("fog", "snow"), limit=12, settings=settings, output=folder, memory=False,
        **options,
    )  # fmt: skip


def outcomes(folder):
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("cells/*/manifest.json"))]
    return {one["cell"]["shifts"][0]: one["outcome"] for one in found}


def test_a_state_from_source_images_is_computed_once_for_all_shifts(tmp_path, inits, cache, monkeypatch):
    first = run(tmp_path / "one").frame()
    assert len(inits) == 1
    told = outcomes(tmp_path / "one")
    assert sorted(one["init_reused"] for one in told.values()) == [False, True]
    assert len({one["init_ms"] for one in told.values()}) == 1
    monkeypatch.setenv("TTA_BENCH_CACHE", str(tmp_path / "cold"))
    again = run(tmp_path / "two", force=True).frame()
    assert len(inits) == 2
    assert first["prediction"].tolist() == again["prediction"].tolist()
    assert first["confidence"].tolist() == again["confidence"].tolist()


@pytest.mark.parametrize("options", [{"seeds": (1,)}, {"settings": ("samples=31",)}, {"batch_size": 5}])
def test_what_init_depends_on_makes_another_state(tmp_path, inits, options):
    run(tmp_path / "one")
    run(tmp_path / "two", **options)
    assert len(inits) == 2


def test_a_damaged_state_is_computed_again(tmp_path, inits, cache):
    run(tmp_path / "one")
    (path,) = (cache / "initial-states").glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    run(tmp_path / "two")
    assert len(inits) == 2


def test_a_nesting_of_tensors_comes_back_in_its_order_and_nothing_else_is_kept(cache):
    state = {"b": {"y": torch.arange(3), "x": torch.rand(2, 2).T}, "a": torch.zeros((), dtype=torch.int64)}
    keep_initial("key", Initial(state, 2.5))
    found = read_initial("key", CPU)
    assert found is not None
    assert found.init_ms == 2.5
    assert list(found.state) == ["b", "a"]
    assert list(found.state["b"]) == ["y", "x"]
    assert torch.equal(found.state["b"]["x"], state["b"]["x"])
    for other in ((torch.zeros(2),), {"a": {}}, {"a": None}, {}):
        keep_initial("other", Initial(other, 1.0))
        assert read_initial("other", CPU) is None
