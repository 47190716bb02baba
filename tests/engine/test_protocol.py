# SPDX-License-Identifier: Apache-2.0
"""What a run does is what its protocol card says: each change of one shows in the other, and nowhere else."""

from dataclasses import replace

import pytest
import torch

from tta_bench.data.dataset import Shift
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.engine import objects
from tta_bench.engine.identity import make_manifest
from tta_bench.engine.objects import Objects
from tta_bench.engine.session import Session
from tta_bench.spec import FACTS
from tta_bench.testing import tiny_clip

from . import fakes
from .fakes import cell
from .test_views_and_split import Watcher


def load(change):
    """Return a loader whose models have been changed."""

    def loader(name, class_names, *, templates, seed, **others):
        source = tiny_clip(classes=len(class_names), size=(3, 16, 16), seed=seed)
        source.class_names, source.text.templates = tuple(class_names), tuple(templates)
        for key, value in change(source).items():
            setattr(source, key, value)
        return source

    return loader


def card(one, monkeypatch, change=lambda source: {}):
    monkeypatch.setattr(objects, "load_model", load(change))
    resolved, problem = Session(fakes.ListStore(), fakes.Silent(), Objects(fakes.LIVE))._resolve(one)
    assert problem is None
    return make_manifest(resolved)


def noise(**attributes):
    """The dataset of noise whose images have other attributes."""

    def open_noise(request):
        images = fakes.Noise(request.shift, count=attributes.pop("count", 37))
        for name, value in attributes.items():
            setattr(images, name, value)
        return images

    return {"dataset": replace(fakes.NOISE, open=open_noise)}


def split(**attributes):
    def open_split():
        images = fakes.Noise("source", count=60)
        for name, value in attributes.items():
            setattr(images, name, value)
        return images

    return {"method": fakes.Replay(), "dataset": replace(fakes.NOISE, source_split=open_split)}


CHANGES = {
    "class_list": {"dataset": replace(fakes.NOISE, class_names=("ape", "bat", "cow", "doe", "eel"))},
    "label_mask": {"dataset": replace(fakes.NOISE, class_indices=(4, 3, 2, 1, 0))},
    "precision": {"precision": "float64"},
    "device": {"change": lambda source: {"device": torch.device("meta")}},
    "scenario": {"scenario": "sequence"},
    "severity": {"shifts": [Shift("noise", "fog", 4)], "also": {"data_hash", "order_hash"}},
    "subset": {"subset": "seeded-37"},
    "images_used": {"subset": "first-20", "also": {"subset", "order_hash", "arrangement"}},
    "images_available": noise(count=40)
    | {"subset": "first-37", "also": {"subset", "data_hash", "arrangement"}},
    "data_hash": noise(data_hash="other"),
    "data_seed": {"data_seed": 1},
    "origin": noise(origin="generated"),
    "order_hash": noise(ids=[f"noise/{37 - i}" for i in range(37)]),
    "model": {"model": "other"},
    "weights": {"change": lambda source: {"weights_sha256": "0" * 64}},
    "preprocessing": {"change": lambda source: {"preprocess": Preprocess((16, 16), 20)}},
    "normalisation": {"change": lambda source: {"mean": source.mean + 1}},
    "reset": {"reset": "batch"},
    "batch_size": {"batch_size": 4},
    "prompts": {"dataset": replace(fakes.NOISE, templates=("a bad photo of a {}.",))},
    "views": {"method": Watcher(), "reset": "shift"},
    "source_data": split() | {"reset": "shift", "also": {"source_split"}},
    "source_split": split(data_hash="other") | {"base": split() | {"reset": "shift"}, "reset": "shift"},
    "hyperparameters_chosen": {"chosen": "tuned-on-test"},
    "seed": {"seed": 1, "also": {"order_hash"}},
    "arrangement": noise(arrangement="rows of the file")
    | {"base": noise() | {"subset": "first-20"}, "subset": "first-20"},
}


def test_every_fact_is_changed():
    assert set(CHANGES) == {fact.name for fact in FACTS}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_run_does_is_what_its_card_says(name, monkeypatch):
    options = dict(CHANGES[name])
    also, change = options.pop("also", set()), options.pop("change", lambda source: {})
    base = {"method": fakes.Counter(), **options.pop("base", {})}
    before = card(cell(**base), monkeypatch)
    monkeypatch.setattr("tta_bench.engine.identity.describe_machine", lambda device: before.machine)
    after = card(cell(**{**base, **options}), monkeypatch, change)
    facts = [manifest.protocol.comparable | manifest.protocol.columns for manifest in (before, after)]
    assert {key for key in facts[0] if facts[0][key] != facts[1][key]} == {name} | also
    assert before.protocol_hash != after.protocol_hash
    assert before.id != after.id
