# SPDX-License-Identifier: Apache-2.0
"""Golden vectors of the CLIP methods: they are met, nothing is left out, and wrong values are noticed."""

import json
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from tta_bench.adapters.clip import Clip

from tta_bench import registry
from tta_bench.errors import BadInputError
from tta_bench.parity.judge import was_replayed
from tta_bench.parity.replay import replay
from tta_bench.parity.vlm_case import course

HERE = Path(__file__).parent
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # open_clip, on import


def some(tmp_path, *names):
    """A folder with some golden methods, beside one with the shared inputs."""
    folder = tmp_path / "some"
    folder.mkdir()
    manifest = json.loads((HERE / "vlm" / "manifest.json").read_text(encoding="utf-8"))
    manifest["methods"] = {name: manifest["methods"][name] for name in names}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    for name in {*names, "features", "tiny_clip"}:
        shutil.copy(HERE / "vlm" / f"{name}.npz", folder)
    return folder


def spoil(folder, file, name, change):
    with np.load(folder / file) as stored:
        arrays = {key: stored[key] for key in stored.files}
    arrays[name] = change(arrays[name])
    np.savez(folder / file, **arrays)


@pytest.fixture
def plan(monkeypatch):
    """Register a plan for a golden method as an outside package would."""

    def register(name, function):
        point = EntryPoint(f"vlm/{name}", "outside:plan", "tta_bench.replays")
        monkeypatch.setattr(EntryPoint, "load", lambda self: function)
        monkeypatch.setattr(registry, "registered", lambda group: {point.name: point})

    return register


def test_the_model_is_compared_with_its_recorded_features(tmp_path):
    folder = some(tmp_path, "tiny_clip")
    assert [result.passed for result in replay(folder)] == [True]
    spoil(folder, "tiny_clip.npz", "w/visual.ln_post.bias", lambda a: a + np.float16(0.01))
    assert [result.passed for result in replay(folder)] == [False]


def test_a_wrong_value_fails(tmp_path):
    folder = some(tmp_path, "zero_shot")
    spoil(folder, "zero_shot.npz", "logits_ensemble", lambda a: a + 2e-6 + 2e-7 * abs(a))
    (result,) = replay(folder)
    assert was_replayed(result)
    assert not result.passed
    assert "logits_ensemble" in result.note


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (
            lambda case: {"logits": torch.zeros(60, 12), "more": torch.zeros(1)},
            "gives an unknown array 'more'",
        ),
        (lambda case: {}, "neither gives nor takes the golden array 'logits'"),
    ],
)
def test_a_plan_covers_every_array_and_no_other(tmp_path, plan, give, message):
    plan("vte", give)
    with pytest.raises(BadInputError, match=message):
        list(replay(some(tmp_path, "vte")))


def test_a_plan_may_refuse_a_case(tmp_path, plan):
    plan("vte", lambda case: "the reference has a defect")
    (result,) = replay(some(tmp_path, "vte"))
    assert not was_replayed(result)
    assert result.note == "the reference has a defect"


def test_inputs_of_a_case_count_as_covered_and_variants_are_cases(tmp_path, plan):
    seen = []

    def give(case):
        seen.append((case.name, case.values["lr"], tuple(case.arrays)))
        arrays = {name: case.given(name) for name in ("base_ctx", "ctx_init")}
        rest = {name: array for name, array in case.arrays.items() if name not in arrays}
        return {**rest, "use": rest["use"] + (case.name == "ttavlm")}

    plan("dynaprompt", give)
    verdicts = {result.case: result.passed for result in replay(some(tmp_path, "dynaprompt"))}
    assert verdicts == {"official": True, "ttavlm": False}  # whole numbers must be equal
    assert [name for name, _, _ in seen] == ["official", "ttavlm"]
    assert set(seen[0][2]) == {"base_ctx", "ctx_init", "ctx", "logits", "losses", "order", "use"}


class ByPrototypes(Clip):
    """Classify with prototypes that are the state."""

    def init(self, source, task):
        return {"prototypes": source.text.prototypes()}

    def predict(self, source, state, inputs):
        return source.text.logits(inputs.features, state["prototypes"])


def test_a_course_resets_between_episodes_and_starts_where_it_is_told():
    from tta_bench.parity.vlm_case import Shared

    features = Shared(HERE / "vlm").features
    negated = {"prototypes": -features.source.head_weight()}
    ran = course(ByPrototypes(), features.source, features.stream(size=8), start=lambda state: negated)
    assert ran.scores.shape == (60, 12)
    zero_shot = features.source.head(features.views[:, 0])
    torch.testing.assert_close(ran.scores, -zero_shot)
    assert ran.stacked("prototypes").shape == (8, *features.text.shape)
