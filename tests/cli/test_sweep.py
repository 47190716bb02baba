# SPDX-License-Identifier: Apache-2.0
"""A sweep has a cell for each point of a grid, shares what its points have in common, and says what it looked at."""

import json

import pytest
from tta_bench.adapters.tda import Tda

import tta_bench as tb
from tta_bench.errors import BadInputError
from tta_bench.spec.grid import axis, grid_points

SWEEP = (
    "sweep",
    "--method",
    "tda",
    "--dataset",
    "pocket-c:fog",
    "--limit",
    "24",
    "--batch-size",
    "8",
    "--no-memory",
)


def manifests(folder):
    return [json.loads(path.read_text()) for path in folder.glob("cells/*/manifest.json")]


def test_points_that_differ_in_scoring_alone_share_one_pass(tta_bench, tmp_path, monkeypatch):
    calls, observe = [], Tda.observe

    def counted(self, source, state, inputs):
        calls.append(len(inputs.features))
        return observe(self, source, state, inputs)

    monkeypatch.setattr(Tda, "observe", counted)
    grid = ("--set", "alpha=1,2", "--set", "beta=3,5,7")
    done = tta_bench(*SWEEP, *grid, "--output", tmp_path / "runs")
    assert done.code == 0, done.err
    assert calls == [8, 8, 8]
    assert "6 points, 6 cells" in done.out
    assert "The test labels were looked at 6 times" in " ".join(done.out.split())
    found = manifests(tmp_path / "runs")
    assert {(one["cell"]["looks"], one["cell"]["chosen"]) for one in found} == {(6, "tuned-on-test")}
    rows = tb.load(str(tmp_path / "runs")).rows()
    assert {row.looks for row in rows} == {6}
    assert {row.hyperparameters_chosen for row in rows} == {"tuned-on-test"}

    alone = tb.evaluate(
        "tda", "pocket-c:fog", limit=24, batch_size=8, settings=("alpha=2", "beta=7"), chosen="tuned-on-test",
        memory=False, output=tmp_path / "alone",
    )  # fmt: skip
    columns = ["image_id", "prediction", "confidence", "entropy", "adapt_ms"]
    frame, expected = (one.frame(columns) for one in (tb.load(str(tmp_path / "runs")), alone))
    shared = frame[frame.variant == expected.variant.iloc[0]]
    for name in columns[:-1]:
        assert shared[name].tolist() == expected[name].tolist()
    assert shared.adapt_ms.min() > 0.2 * frame.adapt_ms.median(), "each is charged the whole step"


def test_other_hyperparameters_take_passes_of_their_own(tta_bench, tmp_path, monkeypatch):
    calls, observe = [], Tda.observe
    monkeypatch.setattr(Tda, "observe", lambda self, *a: calls.append(self.capacity) or observe(self, *a))
    done = tta_bench(*SWEEP, "--set", "capacity=1,2", "--set", "alpha=1,2", "--output", tmp_path / "runs")
    assert done.code == 0, done.err
    assert calls == [1, 1, 1, 2, 2, 2]


def test_a_sample_is_a_part_of_the_grid_and_the_same_every_time(tta_bench, tmp_path):
    asked = (*SWEEP, "--set", "alpha=1,3,4", "--set", "beta=3,7", "--sample", "2", "--dry-run")
    first, second = (tta_bench(*asked, "--output", tmp_path / "runs") for _ in range(2))
    assert first.out == second.out
    assert "2 points, 2 cells" in first.out
    assert first.out.count("tda[") == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [(("--set", "alpha=1"), "several values"), ((), "several values"), (("--set", "alpha=1,,2"), "between commas"),
     (("--set", "alpha=1,2", "--sample", "3"), "1 to 2, the points of the grid"),
     (("--set", "alpha=1,much"), "alpha")],
)  # fmt: skip
def test_what_is_no_grid_is_refused(settings, message, tta_bench, tmp_path):
    done = tta_bench(*SWEEP, *settings, "--output", tmp_path / "runs")
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "runs").exists()


def test_the_points_of_a_grid():
    assert axis("tda.entropy_band=[0.2,0.5], [0.1,0.4]") == [
        "tda.entropy_band=[0.2,0.5]",
        "tda.entropy_band=[0.1,0.4]",
    ]
    points = grid_points(["a=1,2", "b=x", "c=3,4"])
    assert points == [
        ("a=1", "b=x", "c=3"),
        ("a=1", "b=x", "c=4"),
        ("a=2", "b=x", "c=3"),
        ("a=2", "b=x", "c=4"),
    ]
    assert grid_points(["a=1,2", "b=x", "c=3,4"], 4) == points
    many = [f"{name}=" + ",".join(map(str, range(100))) for name in "abcd"]
    assert len(set(grid_points(many, 5))) == 5
    with pytest.raises(BadInputError, match="10000 points, got 100000000"):
        grid_points(many)
