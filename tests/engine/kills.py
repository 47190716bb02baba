# SPDX-License-Identifier: Apache-2.0
"""Kill a run of small cells at a random point, resume it, and compare every number with an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from typing import NamedTuple

import torch

from tta_bench.engine import objects
from tta_bench.engine.session import Session
from tta_bench.records import states
from tta_bench.records.sink import Sink
from tta_bench.records.store import Store
from tta_bench.testing import tiny_source

from . import fakes
from .fakes import FOG, LIVE, SNOW, cell
from .plugin import Dice, Walk

NUMBERS = [
    "image_id", "position", "label", "prediction", "confidence", "entropy", "top5", "source_prediction",
    "source_confidence", "reset",
]  # fmt: skip
"""Columns that must not depend on what happened to a run."""


class Kill(NamedTuple):
    """One kill: after how many seconds, what was there, and whether the resumed run is the undisturbed one."""

    seconds: float
    cells: int
    rows: int
    rows_resumed: int
    exact: bool


def cells(seeds):
    """Three methods on two shifts for each seed: an online one, and two that take images as they come."""
    methods = (("walk", Walk()), ("dice", Dice()), ("drawn", fakes.Drawn()))
    return [
        cell(method, [shift], name=name, seed=seed)
        for seed in range(seeds)
        for shift in (FOG, SNOW)
        for name, method in methods
    ]


def run(folder, planned):
    """Run cells into a folder, resuming what is there."""
    store = Store(str(folder)).open(create=True)
    session = Session(
        Sink(store), fakes.Silent(), objects.Objects(LIVE), resume=True, probe_memory=False, threads=1
    )
    return session.run(planned)


def numbers(folder):
    """What must not depend on a kill."""
    store = Store(str(folder))
    return {one.id: (one.status, store.read(one.id, NUMBERS).to_pydict()) for one in store.manifests()}


def prepare(patch):
    """Let every run be on a tiny network, and write rows and states after every batch."""
    patch.setattr(objects, "load_model", lambda *a, **k: tiny_source(classes=5, size=(3, 16, 16)))
    patch.setattr(states, "SHARE", 1e9)
    patch.setenv("TTA_BENCH_FLUSH_SECONDS", "0")


def kill(folder, planned, expected, seconds):
    """Kill a run after some seconds with SIGKILL, resume it, and compare."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # of more it would wait for ever for those that it did not inherit
        try:
            run(folder, planned)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    store = Store(str(folder))
    before = {name: store.rows_done(name) for name in store.cells()} if os.path.isdir(folder) else {}
    run(folder, planned)
    computed = sum(one.outcome.computed for one in store.manifests() if before.get(one.id, 0))
    return Kill(seconds, len(before), sum(before.values()), computed, numbers(folder) == expected)


def kills(folder, count, seeds, seed=0):
    """Yield so many kills at random points of one and the same run."""
    draw, planned = random.Random(seed), cells(seeds)
    run(folder / "warm", planned)
    began = time.monotonic()
    run(folder / "whole", planned)
    whole, expected = time.monotonic() - began, numbers(folder / "whole")
    assert len(expected) == len(planned)
    for _ in range(count):
        yield kill(folder / "killed", planned, expected, draw.uniform(0.0, 1.1 * whole))
        shutil.rmtree(folder / "killed")
