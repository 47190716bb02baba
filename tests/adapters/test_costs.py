# SPDX-License-Identifier: Apache-2.0
"""The cost that a card states, against the passes that a step makes."""

import re

import pytest
import torch
from safetensors.torch import save_file

from tta_bench import registry
from tta_bench.models.source import SourceModel
from tta_bench.steps import step
from tta_bench.testing import tiny_task
from tta_bench.testing.inputs import REPLAY_SIZE, tiny_inputs
from tta_bench.testing.sources import sources_for

EVERY_SAMPLE = {
    "eta": {"margin": 2.0, "redundancy": 2.0},
    "eata": {"margin": 2.0, "redundancy": 2.0},
    "rdumb": {"margin": 2.0, "redundancy": 2.0},
    "sar": {"margin": 2.0, "recovery": 0.0},
    "deyo": {"margin": 2.0, "plpd": -1.0},
    "pl": {"beta": 0.0},
    "cotta": {"confidence": 2.0},
    "roid": {"weighting": False},
    "cmf": {"weighting": False},
}
"""Hyper-parameters with which no sample is left out and every view is used."""
BUILT_IN = sorted(
    n for n, p in registry.registered("methods").items() if p.module.startswith("tta_bench.adapters.")
)


AMORTISED = {"panda"}
"""Methods that run a few more images for each batch, so that their cost per image depends on its size."""


@pytest.fixture
def files(tmp_path):
    """Hyper-parameters that name a file, by method; the file fits the tiny CLIP-like model."""
    statistics = {name: torch.ones(3, 19, 16) for name in ("source_means", "source_vars")}
    prompts = {"ctx": torch.zeros(2, 16), "proj.weight": torch.zeros(16, 16), "proj.bias": torch.zeros(16)}
    save_file({**prompts, **statistics}, tmp_path / "maple.safetensors")
    return {"promptalign": {"weights": str(tmp_path / "maple.safetensors")}}


@pytest.fixture
def count(monkeypatch):
    """A function that returns the forward and backward passes of a method's step, by what the network is given."""
    images = {"forward": 0, "backward": 0}
    call = SourceModel._call

    def counted(self, x, tensors, mode):
        differentiated = torch.is_grad_enabled() and any(t.requires_grad for t in (tensors or {}).values())
        seen = len(x) if mode in ("full", "encode", "patches") else 0
        images["forward"] += seen
        images["backward"] += seen * differentiated
        return call(self, x, tensors, mode)

    def passes(name, **values):
        method = registry.load("methods", name)(**values)
        source = sources_for(method)[0]
        state = method.init(source, tiny_task(source, method))
        size = 1 if method.card.reset == "image" else REPLAY_SIZE
        with monkeypatch.context() as patched:
            patched.setattr(SourceModel, "_call", counted)
            step(method, source, state, tiny_inputs(source, size, method=method))
        return images["forward"] / size, images["backward"] / size

    return passes


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_step_makes_the_passes_that_its_card_states(name, count, files):
    stated = re.match(r"([\d.]+) forward(?: \+ ([\d.]+) backward)?", registry.load("methods", name).card.cost)
    assert stated, f"the card of {name} states no cost"
    expected = tuple(float(part or 0) for part in stated.groups())
    found = count(name, **EVERY_SAMPLE.get(name, {}), **files.get(name, {}))
    assert found == (pytest.approx(expected, rel=0.1) if name in AMORTISED else expected)


@pytest.mark.parametrize(
    ("name", "values", "passes"),
    [
        ("norm", {"statistics": "ema"}, (2, 0)),
        ("cotta", {"confidence": 0.0}, (3, 1)),
        ("tent", {"steps": 3}, (3, 3)),
        ("rotta", {"every": REPLAY_SIZE}, (3, 1)),
        ("note", {"every": REPLAY_SIZE}, (2, 1)),
    ],
)
def test_other_settings_make_the_passes_that_their_cards_mention(name, values, passes, count):
    assert count(name, **values) == passes
