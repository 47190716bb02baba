# SPDX-License-Identifier: Apache-2.0
"""What happens to the process, the disk and the clock: nothing measured is lost, and a resume gives the same bytes."""

import errno
import os
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import pytest
import torch

from tta_bench.engine import objects
from tta_bench.engine.baselines import Baselines
from tta_bench.engine.objects import Objects
from tta_bench.engine.session import Session
from tta_bench.engine.states import dump_state, load_state
from tta_bench.errors import StoreError
from tta_bench.method import Adapted, Card
from tta_bench.records import claims, states
from tta_bench.records.driver import fail
from tta_bench.records.shards import merge
from tta_bench.records.sink import Sink
from tta_bench.records.store import Store
from tta_bench.testing import tiny_source

from . import fakes
from .fakes import FOG, LIVE, SNOW, cell
from .kills import NUMBERS
from .plugin import Dice, Walk

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def tiny_and_at_once(monkeypatch):
    """Every run is on a tiny network, and rows and states are written after every batch."""
    monkeypatch.setattr(objects, "load_model", lambda *a, **k: tiny_source(classes=5, size=(3, 16, 16)))
    monkeypatch.setenv("TTA_BENCH_FLUSH_SECONDS", "0")
    monkeypatch.setattr(states, "SHARE", 1e9)


class Killed(BaseException):
    """The process dies: nobody closes anything."""


def session(store, reporter=None, **options):
    options = {"resume": True, "probe_memory": False, **options}
    return Session(Sink(store), reporter or fakes.Silent(), Objects(LIVE), **options)


def numbers(store, one):
    return store.read(one.cell, NUMBERS).to_pydict()


def killed_after(monkeypatch, store, cells, batches):
    """Run cells in a process that dies after so many batches."""
    from tta_bench.engine import cell as module

    count, real = 0, module.CellRunner._one

    def dying(self, state, now):
        nonlocal count
        if count == batches:
            raise Killed
        count += 1
        return real(self, state, now)

    with monkeypatch.context() as patch:
        patch.setattr(module.CellRunner, "_one", dying)
        patch.setattr("tta_bench.engine.session.ANYTHING", (Exception,))
        with pytest.raises(Killed):
            session(store).run(cells)


@pytest.mark.parametrize("reset", ["shift", "never"])
@pytest.mark.parametrize("batches", [1, 4, 6])
def test_an_online_cell_resumes_in_the_middle_with_the_same_bytes(tmp_path, monkeypatch, reset, batches):
    one = cell(Walk(), [FOG, SNOW], reset=reset)
    whole, store = (Store(tmp_path / name).open(create=True) for name in ("whole", "killed"))
    (expected,) = session(whole).run([one])
    killed_after(monkeypatch, store, [one], batches)
    saved = store.state(expected.cell)
    assert saved.rows == store.rows_done(expected.cell) > 0
    told = fakes.Silent()
    monkeypatch.setattr(told, "cell_started", lambda label, done, total: told.ended.append((done, total)))
    session(store, told).run([one])
    assert told.ended[0] == (saved.rows, 74)
    assert numbers(store, expected) == numbers(whole, expected)
    manifest = store.manifest(expected.cell)
    assert manifest.outcome.computed == 74 - saved.rows
    assert manifest.outcome.state_mib == pytest.approx((5 * 4 + 8) / 2**20)
    assert sorted(path.name for path in (tmp_path / "killed" / "cells" / expected.cell).iterdir()) == [
        "manifest.json", "records.parquet",
    ]  # fmt: skip


def test_a_damaged_state_or_one_without_its_rows_costs_time_and_no_number(tmp_path, monkeypatch):
    one = cell(Walk(), [FOG])
    whole = Store(tmp_path / "whole").open(create=True)
    (expected,) = session(whole).run([one])
    for name, harm in (
        ("bits", lambda c: c[:-1] + bytes([c[-1] ^ 1])),
        ("cut", lambda c: c[:40]),
        ("not", bytes),
    ):
        store = Store(tmp_path / name).open(create=True)
        killed_after(monkeypatch, store, [one], 3)
        (path,) = (tmp_path / name / "cells" / expected.cell).glob("state-*")
        path.write_bytes(harm(path.read_bytes()))
        if name == "not":  # a state of rows that were never written
            path.rename(path.with_name("state-00037.safetensors"))
        session(store).run([one])
        assert numbers(store, expected) == numbers(whole, expected)


@dataclass(frozen=True)
class Odd(Walk):
    """Carry a state of a kind that is not kept."""

    card: ClassVar[Card] = replace(Walk.card)

    def init(self, source, task):
        return {1: torch.zeros(source.num_classes)}

    def adapt(self, source, state, inputs):
        return Adapted({1: state[1] + 1}, source.logits(inputs.images) + state[1])


def test_a_state_that_cannot_be_kept_lets_its_cell_start_again(tmp_path, monkeypatch):
    store = Store(tmp_path).open(create=True)
    killed_after(monkeypatch, store, [cell(Odd())], 3)
    (ended,) = session(store).run([cell(Odd())])
    assert ended.status == "complete"
    assert store.manifest(ended.cell).outcome.computed == 37


def test_a_large_state_is_kept_less_often(tmp_path):
    now, written = [0.0], []
    files = states.StateFiles(Store(tmp_path)._files, "c", clock=lambda: now[0])

    def dump():
        now[0] += 2.0
        written.append(now[0])
        return b"state"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states, "SHARE", 0.05)
        for rows in range(1, 200):
            now[0] += 1.0
            files.offer(rows, dump)
            files.keep()
    assert all(later - earlier >= 40 for earlier, later in pairwise(written))
    assert 4 <= len(written) <= 6


def test_states_come_back_bit_for_bit_with_their_memory_order():
    image = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    state = {
        "a": image, "b": [torch.tensor(2**53 + 1), (torch.tensor(float("nan")), torch.zeros(0))],
        "c": {}, "d": torch.ones(3, dtype=torch.bfloat16), "e": torch.tensor([True]), "f": torch.rand(4, 3).T,
        "g": torch.rand(3, 1).expand(3, 4),
    }  # fmt: skip
    found, facts = load_state(dump_state(state, {"x": "y"}), CPU)
    assert facts == {"x": "y"}
    assert list(found) == list(state)
    assert found["a"].stride() == image.stride()
    assert found["f"].stride() == state["f"].stride()
    for name in "adefg":
        assert torch.equal(found[name], state[name])
        assert found[name].dtype == state[name].dtype
    assert isinstance(found["b"][1], tuple)
    assert int(found["b"][0]) == 2**53 + 1
    assert dump_state({"a": None}) is None


@pytest.mark.parametrize("count", [2, 3, 40])
def test_shards_put_together_are_the_cell(tmp_path, monkeypatch, count):
    one = cell(Dice(), [FOG, SNOW])
    whole, store = (Store(tmp_path / name).open(create=True) for name in ("whole", "parts"))
    (expected,) = session(whole).run([one])
    for index in range(count):
        (ended,) = session(store, shard=(index, count)).run([one])
        part = store.shard(expected.cell, index, count).manifest(expected.cell)
        assert part is None or part.error is None, part.error
        assert ended.status == "complete"
    with pytest.raises(StoreError, match="should be finished"):
        merge(store, expected.cell, count + 1)
    assert merge(store, expected.cell, count).status == "complete"
    assert numbers(store, expected) == numbers(whole, expected)
    assert store.manifest(expected.cell).outcome.computed == 74
    (again,) = session(store, shard=(0, count)).run([one])
    assert again.status == "reused"


def test_a_shard_that_fails_fails_the_cell_and_keeps_the_others(tmp_path):
    store = Store(tmp_path).open(create=True)
    one = cell(fakes.Faulty(after=2), reset="image")
    bad = cell(fakes.Faulty(after=0), reset="image")
    assert one.reset == bad.reset == "image"
    for index in range(3):
        (ended,) = session(store, shard=(index, 3)).run([bad])
    assert ended.status == "failed"
    final = merge(store, ended.cell, 3)
    assert final.status == "failed"
    assert "the plug-in broke" in final.error
    assert final.images == 0
    assert list(tmp_path.glob("shards/*/*/cells/*/manifest.json"))


def test_what_was_ended_from_outside_keeps_its_rows_and_resumes(tmp_path, monkeypatch):
    from tta_bench.engine.executors.task import Setup, Task
    from tta_bench.spec import Controls

    store = Store(tmp_path).open(create=True)
    one = cell(Walk())
    killed_after(monkeypatch, store, [one], 3)
    (name,) = store.cells()
    answer = fail(Setup(Controls(output=str(tmp_path))), name, Task(0, one), "it took too long")
    assert answer.ended.status == "failed"
    kept = store.manifest(name)
    assert (kept.status, kept.error, kept.images) == ("failed", "it took too long", 24)
    (ended,) = session(store).run([one])
    assert ended.status == "complete"
    assert store.manifest(name).outcome.computed == 13
    assert store.manifest(name).error is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("method", [Walk(), Dice()])
def test_a_full_or_read_only_disk_ends_the_run_in_one_sentence_and_keeps_what_is_there(
    tmp_path, monkeypatch, number, method
):
    one = cell(method)
    whole, store = (Store(tmp_path / name).open(create=True) for name in ("whole", "full"))
    (expected,) = session(whole).run([one])
    fs = type(store._files._fs)
    real = fs.open

    def full(self, path, mode="rb", **more):
        if mode == "wb" and "part-00002" in path:
            raise OSError(number, os.strerror(number))
        return real(self, path, mode, **more)

    with monkeypatch.context() as patch:
        patch.setattr(fs, "open", full)
        with pytest.raises(StoreError, match="should be writable and is not"):
            session(store).run([one])
    assert store.rows_done(expected.cell) == 16
    session(store).run([one])
    assert store.manifest(expected.cell).outcome.computed == 37 - 16
    assert numbers(store, expected) == numbers(whole, expected)


def test_a_clock_that_jumps_changes_no_number_and_no_duration(tmp_path, monkeypatch):
    one, jumps = cell(Walk()), iter([4e9, 0.0, 2e9] * 10000)
    whole, store = (Store(tmp_path / name).open(create=True) for name in ("whole", "jumping"))
    (expected,) = session(whole).run([one])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    monkeypatch.setattr("tta_bench.engine.session._now", lambda: "1970-01-01T00:00:00+00:00")
    session(store).run([one])
    assert numbers(store, expected) == numbers(whole, expected)
    assert 0 < store.manifest(expected.cell).outcome.seconds < 60
    assert all(value >= 0 for value in store.read(expected.cell, ["adapt_ms"])["adapt_ms"].to_pylist())


def test_what_all_share_is_computed_by_one_and_waited_for_by_the_others(tmp_path, monkeypatch):
    files = Store(tmp_path)._files
    results: list = []
    assert claims.found_or_claimed(files, "scores/k.claim", lambda: None) is None
    with monkeypatch.context() as other:  # now seen from another process
        other.setattr("os.getpid", lambda: 1)

        def slept(seconds):
            results.append("there")

        find = lambda: results[0] if results else None  # noqa: E731
        assert claims.found_or_claimed(files, "scores/k.claim", find, sleep=slept) == "there"
        other.setattr(claims, "runs", lambda pid: False)  # the one that computed is dead
        assert claims.found_or_claimed(files, "scores/k.claim", lambda: None, sleep=pytest.fail) is None
    with monkeypatch.context() as other:
        other.setattr("socket.gethostname", lambda: "elsewhere")
        ticks = iter(range(0, 10**6, 100))
        waited: list = []
        find = lambda: None  # noqa: E731
        clock = lambda: next(ticks)  # noqa: E731
        assert (
            claims.found_or_claimed(files, "scores/k.claim", find, clock=clock, sleep=waited.append) is None
        )
        assert len(waited) == 6


@pytest.mark.parametrize("method", [Walk(), Dice()])
@pytest.mark.parametrize("deaths", [1, 3])
def test_a_decoder_that_dies_is_replaced_and_its_cell_resumes(tmp_path, monkeypatch, method, deaths):
    one = cell(method)
    whole, store = (Store(tmp_path / name).open(create=True) for name in ("whole", "deaths"))
    session(whole).run([one])
    calls, real = 0, fakes.Noise.load

    def dying(self, positions, preprocess):
        nonlocal calls
        calls += 1
        if calls >= 4 and calls < 4 + deaths:
            raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
        return real(self, positions, preprocess)

    with monkeypatch.context() as patch:
        patch.setattr(fakes.Noise, "load", dying)
        patch.setattr(Baselines, "source", lambda self: None)
        (ended,) = session(store, resume=False).run([one])
    if deaths == 3:
        assert ended.status == "failed"
        assert "exited unexpectedly" in store.manifest(ended.cell).error
        return
    assert ended.status == "complete"
    assert store.manifest(ended.cell).outcome.computed == 37 - 24
    columns = ["position", "prediction", "confidence"]
    assert store.read(ended.cell, columns).equals(whole.read(ended.cell, columns))


@dataclass(frozen=True)
class Hungry(Dice):
    """Run out of memory above so many images at once, as CUDA does."""

    most: int = 3

    def adapt(self, source, state, inputs):
        if len(inputs.images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().adapt(source, state, inputs)


def test_fewer_episodes_are_taken_at_once_where_memory_runs_out_and_never_a_smaller_batch(tmp_path):
    store = Store(tmp_path).open(create=True)
    roomy, hungry, batch = session(store).run(
        [
            cell(Hungry(most=99), name="hungry"),
            cell(Hungry(most=3), name="hungry"),
            cell(Hungry(most=3), name="hungry", reset="batch"),
        ]
    )
    outcome = store.manifest(hungry.cell).outcome
    assert (outcome.images_at_once, outcome.out_of_memory) == (2, 2)
    assert store.manifest(roomy.cell).outcome.out_of_memory == 0
    columns = [store.read(one.cell, ["prediction", "batch_size"]).to_pydict() for one in (roomy, hungry)]
    assert columns[0] == columns[1]
    assert batch.status == "failed"
    assert "OutOfMemoryError" in store.manifest(batch.cell).error
