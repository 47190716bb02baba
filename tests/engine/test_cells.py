# SPDX-License-Identifier: Apache-2.0
"""A cell is names and plain values: it travels as a pickle or as JSON, and any process computes the same from it."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest

from tta_bench.data.dataset import find_dataset
from tta_bench.engine.objects import Objects
from tta_bench.engine.planning import plan
from tta_bench.engine.session import Session
from tta_bench.errors import BadInputError, PluginError
from tta_bench.records.sink import Sink
from tta_bench.records.store import Store
from tta_bench.spec import Cell, Request, make_request
from tta_bench.spec.plain import from_plain, to_plain
from tta_bench.suites import load_suite, suite_names, within

from . import fakes

COLUMNS = [
    "image_id",
    "position",
    "prediction",
    "confidence",
    "entropy",
    "source_prediction",
    "source_confidence",
]
METHOD = """
from dataclasses import dataclass

from tta_bench.method import Adapted, Card, Method


@dataclass(frozen=True)
class Sharper(Method):
    factor: float = 2.0
    names: tuple[str, ...] = ("a", "b")
    card = Card(paper="none", reset="batch")

    def adapt(self, source, state, inputs):
        return Adapted(state, self.factor * source.logits(inputs.images))
"""

ELSEWHERE = """
import pickle, sys
import torch
from tta_bench.engine.objects import Objects
from tta_bench.engine.session import Session
from tta_bench.records.sink import Sink
from tta_bench.records.store import Store

class Silent:
    cell_started = preparing = advanced = cell_ended = lambda self, *arguments: None

torch.set_num_threads(1)
cells = pickle.load(sys.stdin.buffer)
Session(Sink(Store(sys.argv[1]).open(create=True)), Silent(), Objects(), probe_memory=False).run(cells)
"""


@pytest.fixture(autouse=True)
def tiny_models():
    """These tests load the models that the cells name."""


@pytest.fixture
def made(tmp_path):
    """Cells of a request with a plug-in file, source data, random weights and a sequence."""
    path = tmp_path / "sharper.py"
    path.write_text(METHOD, encoding="utf-8")
    common = {"datasets": ("pocket-c:fog", "pocket-c:snow"), "limit": 12, "batch_size": 5}
    return plan(
        Request(("sharper", "santa"), plugins=(str(path),), presets={"santa": "pocket"}, data_seed=3,
                settings=("santa.samples=16",), **common)
    ) + plan(Request(("tent",), reset="never", seeds=(0, 1), pretrained=False, **common))  # fmt: skip


def run(cells, folder):
    """Run cells and return what must not depend on the process, by id."""
    store = Store(str(folder)).open(create=True)
    ended = Session(Sink(store), fakes.Silent(), Objects(), probe_memory=False).run(cells)
    assert {one.status for one in ended} == {"complete"}
    return {one.cell: store.read(one.cell, COLUMNS).to_pydict() for one in ended}


@pytest.mark.parametrize("name", suite_names())
def test_every_cell_of_a_suite_travels(name):
    datasets = [find_dataset(one)[0] for one in load_suite(name).options["datasets"]]
    corrupted = all("fog" in one.corruptions for one in datasets)
    values, use = within(name, {"corruptions": ["fog", "snow"]} if corrupted else {})
    cells = plan(make_request(values, use))
    assert len(cells) > 20
    for cell in cells:
        assert pickle.loads(pickle.dumps(cell)) == cell
        again = from_plain(Cell, json.loads(json.dumps(to_plain(cell))))
        assert again.identity() == cell.identity()
        assert Objects().method(again) == Objects().method(cell)


def test_a_cell_computes_the_same_in_another_process(made, tmp_path):
    here = run(made, tmp_path / "here")
    assert len(here) == 2 + 2 + 2
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "there")]
    subprocess.run(command, input=pickle.dumps(made), check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    store = Store(str(tmp_path / "there")).open(create=False)
    assert {one: store.read(one, COLUMNS).to_pydict() for one in here} == here


def test_random_weights_depend_on_the_seed_of_the_cell_alone(tmp_path):
    ids = []
    for seeds in ((1,), (0, 1)):
        request = Request(("source",), ("pocket",), limit=4, seeds=seeds, pretrained=False)
        found = run(plan(request), tmp_path / str(len(seeds)))
        ids.append(list(found))
    assert ids[0] == ids[1][1:]
    weights = {Store(str(tmp_path / "2")).manifest(one).protocol.weights for one in ids[1]}
    assert len(weights) == 2


def test_the_data_seed_changes_pixels_and_nothing_else(tmp_path):
    cells = [
        plan(Request(("source",), ("pocket-c:gaussian_noise",), limit=4, data_seed=seed))[0]
        for seed in (0, 1)
    ]
    objects = Objects()
    streams = [next(objects.stream(cell, objects.model(cell)).from_row()) for cell in cells]
    assert streams[0].ids == streams[1].ids
    assert not streams[0].images.equal(streams[1].images)
    hashes = [objects.open(cell)[0].data_hash for cell in cells]
    assert hashes[0] != hashes[1]


def test_a_plugin_file_that_changed_is_refused(made, tmp_path):
    (tmp_path / "sharper.py").write_text(METHOD.replace("2.0", "3.0"), encoding="utf-8")
    with pytest.raises(PluginError, match="should be the file that the cell was planned with"):
        Objects().method(made[0])
    with pytest.raises(PluginError, match="the code of method 'santa' differs"):
        Objects().method(replace(made[1], method_hash="0"))


def test_a_cell_of_an_object_is_refused_where_the_object_is_not():
    cell = fakes.cell(fakes.Same())
    with pytest.raises(
        BadInputError, match=r"is an in-process cell: its dataset 'noise' is an object of the process"
    ):
        Session(fakes.ListStore(), fakes.Silent(), Objects()).run([cell])
