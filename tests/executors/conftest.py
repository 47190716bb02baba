# SPDX-License-Identifier: Apache-2.0
"""Runs of quick methods in several processes, and what they must leave."""

import os
from pathlib import Path

import pytest

from tta_bench.api import run_cells
from tta_bench.engine.planning import plan
from tta_bench.records.store import Store
from tta_bench.spec import Controls, make_request

PLUGIN = str(Path(__file__).parents[1] / "engine" / "plugin.py")
NUMBERS = [
    "image_id", "position", "label", "prediction", "confidence", "entropy", "top5", "source_prediction",
    "source_confidence", "reset",
]  # fmt: skip


def planned(methods, *, shifts=("pocket:",), limit=24, batch_size=4, **options):
    """The cells of quick methods on a few images of PocketScenes."""
    datasets = [shift.rstrip(":") for shift in shifts]
    values = {"methods": methods, "datasets": datasets, "limit": limit, "batch_size": batch_size, **options}
    return plan(make_request({"plugins": [PLUGIN], "models": ["pocket-bn"], "device": "cpu", **values}))


def ran(cells, output, **controls):
    """Run cells and return how each ended."""
    controls = {"memory": False, "threads": 1, **controls}
    return run_cells(cells, Controls(output=str(output), **controls)).ended


def numbers(output):
    """What must not depend on how a run was carried out, by cell."""
    store = Store(str(output))
    return {one.id: store.read(one.id, NUMBERS).to_pydict() for one in store.manifests()}


def manifests(output):
    return {one.cell.method: one for one in Store(str(output)).manifests()}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The numbers of two quick methods on two shifts, computed in this process."""
    os.environ.setdefault("TTA_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    output = tmp_path_factory.mktemp("undisturbed")
    ran(planned(["walk", "dice"], shifts=("pocket", "pocket-sketch")), output)
    return numbers(output)
