# SPDX-License-Identifier: Apache-2.0
"""Groups of episodes: their size follows from memory, and no number depends on it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tta_bench.adapters.memo import Memo
from tta_bench.adapters.tent import Tent

from tta_bench.engine import groups as grouping
from tta_bench.engine import machine
from tta_bench.engine.groups import grouping_pays, images_at_once

from . import fakes
from .fakes import cell, run

CPU = torch.device("cpu")


def with_memory(monkeypatch, size):
    monkeypatch.setattr(grouping, "memory_bytes", lambda device: size)


def test_the_step_that_takes_most_sets_the_size(monkeypatch):
    with_memory(monkeypatch, 2**30)
    held = 2**20  # floats of four bytes

    def step():
        return torch.zeros(held)

    assert images_at_once(64, CPU, None, None) == 64
    assert images_at_once(500, CPU, None, step) == 2**28 // (4 * held)
    assert images_at_once(500, CPU, {"w": torch.zeros(held)}, None) == 2**26 // (4 * held)
    assert images_at_once(500, CPU, torch.zeros(2**28, dtype=torch.uint8), None) == 1


def product(size):
    return lambda: torch.ones(size, size) @ torch.ones(size, size)


@pytest.mark.parametrize(
    ("size", "weights", "own", "pays"),
    [
        (600, 10, 0, True),  # 216 million multiply-adds: small
        (700, 10, 0, False),  # 343 million: large
        (700, 3_000_000, 10, True),  # 114 with each of many shared weights
        (700, 2_000_000, 10, False),  # 172 with each
        (700, 3_000_000, 400_000, False),  # each image has weights of its own
    ],
)
def test_groups_are_made_by_the_work_of_a_step(size, weights, own, pays):
    source = SimpleNamespace(device=CPU, params={"w": torch.empty(weights)})
    assert grouping_pays(source, {"own": torch.empty(own)}, product(size)) is pays


def test_on_another_device_groups_are_made_as_memory_goes():
    source = SimpleNamespace(device=torch.device("cuda"), params={})
    assert grouping_pays(source, {}, product(700))
    assert images_at_once(64, torch.device("mps"), None, product(2)) == 1  # it tells no peak


@pytest.mark.parametrize("method", [Tent(), Memo(views=4)])
def test_where_groups_do_not_pay_one_image_after_another_is_adapted_by_ordinary_autograd(method, monkeypatch):
    plan = cell(method, reset="image")
    grouped, (ended,), _ = run([plan])
    monkeypatch.setattr(grouping, "SMALL_STEP", 0)
    monkeypatch.setattr(grouping, "FEW_PRODUCTS", 0)
    monkeypatch.setattr(torch.func, "vmap", None)
    monkeypatch.setattr(torch.func, "vjp", None)
    alone, _, _ = run([plan])
    assert alone.manifests[ended.cell].status == "complete", alone.manifests[ended.cell].error
    assert alone.manifests[ended.cell].outcome.images_at_once == 1
    assert grouped.manifests[ended.cell].outcome.images_at_once == 8
    one, other = (store.writers[ended.cell].column("confidence") for store in (alone, grouped))
    torch.testing.assert_close(torch.tensor(one), torch.tensor(other))
    assert alone.writers[ended.cell].column("prediction") == grouped.writers[ended.cell].column("prediction")


@pytest.mark.parametrize("method", [fakes.Drawn(), Tent(), fakes.Replay()])
def test_groups_change_no_number(method, monkeypatch):
    plan = cell(method, reset="image", dataset=fakes.LABELLED)
    whole, ended, _ = run([plan])
    monkeypatch.setattr("tta_bench.engine.cell.images_at_once", lambda *arguments: 3)
    parts, again, _ = run([plan])
    assert ended[0].cell == again[0].cell
    for name in ("image_id", "position", "prediction", "batch_size", "warmup", "reset"):
        assert parts.writers[again[0].cell].column(name) == whole.writers[ended[0].cell].column(name)
    assert len(set(whole.writers[ended[0].cell].column("confidence"))) > 1
    one, other = (store.writers[ended[0].cell].column("confidence") for store in (whole, parts))
    torch.testing.assert_close(torch.tensor(one), torch.tensor(other))
    assert [
        parts.manifests[again[0].cell].outcome.images_at_once,
        whole.manifests[ended[0].cell].outcome.images_at_once,
    ] == [3, 8]


def test_a_small_machine_adapts_to_one_image_after_another(monkeypatch):
    with_memory(monkeypatch, 2**10)
    store, ended, _ = run([cell(Tent(), reset="image")])
    assert ended[0].status == "complete"
    assert store.manifests[ended[0].cell].outcome.images_at_once == 1


def test_a_batch_that_is_not_episodic_is_never_parted(monkeypatch):
    with_memory(monkeypatch, 2**10)
    store, ended, _ = run([cell(fakes.Counter())])
    assert store.manifests[ended[0].cell].outcome.images_at_once is None


def test_memory_is_that_of_the_control_group_where_it_is_less(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(machine, "LIMITS", (tmp_path / "none",))
    installed = machine.memory_bytes(CPU)
    (tmp_path / "none").write_text("max\n", encoding="ascii")
    assert machine.memory_bytes(CPU) == installed > 2**28
    (tmp_path / "none").write_text("1048576\n", encoding="ascii")
    assert machine.memory_bytes(CPU) == 2**20


def test_memory_is_the_machines_and_assumed_where_the_system_does_not_say(monkeypatch):
    monkeypatch.setattr(machine, "LIMITS", ())
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(machine.os, "sysconf", sizes.__getitem__)
    assert machine.memory_bytes(CPU) == 4096 * 1000
    monkeypatch.setattr(machine.os, "sysconf_names", {})
    assert machine.memory_bytes(CPU) == machine.ASSUMED_MEMORY


@pytest.mark.parametrize(("told", "name"), [("Zen", "Zen"), ("", "x86_64")])
def test_a_processor_without_a_list_of_facts_is_what_python_calls_it(monkeypatch, told, name):
    monkeypatch.setattr(machine.Path, "exists", lambda path: False)
    monkeypatch.setattr(machine.platform, "processor", lambda: told)
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    assert machine.processor.__wrapped__() == name
