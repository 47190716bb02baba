# SPDX-License-Identifier: Apache-2.0
"""A reward model is named, loaded beside the source model, told in the table, and missed in one sentence."""

import json

import pytest

import tta_bench as tb
from tta_bench.engine.objects import Objects
from tta_bench.engine.planning import plan
from tta_bench.spec import Request

RUN = ("run", "--method", "rlcf", "--dataset", "pocket-v2", "--limit", "3", "--no-memory")


def test_pocket_clip_judges_the_pocket_models_and_the_cell_says_so(tmp_path):
    options = {"limit": 3, "memory": False, "settings": ("views=8",), "output": tmp_path / "runs"}
    found = tb.evaluate("rlcf", "pocket-v2", **options)
    tb.evaluate("rlcf", "pocket-v2", reward="pocket-vit-clip", **options)
    cells = {
        one["cell"]["reward"]: one
        for one in (json.loads(path.read_text()) for path in tmp_path.glob("runs/cells/*/manifest.json"))
    }
    assert set(cells) == {"pocket-clip", "pocket-vit-clip"}
    weights = {name: one["protocol"]["weights"] for name, one in cells.items()}
    own, reward = weights["pocket-clip"].split("+")
    assert own == reward, "it is judged by a copy of itself"
    assert weights["pocket-vit-clip"].startswith(f"{own}+")
    assert weights["pocket-vit-clip"] != weights["pocket-clip"]
    assert [row.variant for row in found] == ["views=8,reward=pocket-clip"]


def test_random_weights_of_a_reward_model_are_others_than_those_of_the_model():
    (cell,) = plan(Request(methods=("rlcf",), datasets=("pocket-v2",), limit=3, pretrained=False))
    source = Objects().model(cell)
    assert source.reward.weights_sha256 != source.weights_sha256


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--model", "open_clip/RN50", "--no-pretrained"), "rlcf needs a reward model beside open_clip/RN50"),
        (("--reward", "pocket-bn"), "--reward model must be a CLIP-like model"),
        (("--reward", "pockt-clip"), "did you mean 'pocket-clip'"),
    ],
)
def test_what_is_no_reward_model_is_refused_before_anything_runs(more, message, tta_bench, tmp_path):
    done = tta_bench(*RUN, *more, "--output", tmp_path / "runs")
    assert done.code == 2
    assert message in done.err
    assert not list(tmp_path.glob("runs/cells/*"))


def test_a_reward_model_without_a_use_and_promptalign_without_prompts_are_refused(tta_bench, tmp_path):
    done = tta_bench("run", "--method", "tda", "--dataset", "pocket-v2", "--reward", "pocket-clip")
    assert (done.code, "a method that has a reward model, such as rlcf, got tda" in done.err) == (2, True)
    done = tta_bench(
        "run", "--method", "promptalign", "--dataset", "pocket-v2", "--output", tmp_path / "runs"
    )
    assert (done.code, "weights=FILE, with ctx" in done.err) == (2, True)
    done = tta_bench(
        "run",
        "--method",
        "promptalign",
        "--dataset",
        "pocket-v2",
        "--set",
        "weights=none",
        "--output",
        tmp_path / "r",
    )
    assert (done.code, "'none', which is no file" in done.err) == (2, True)
