# SPDX-License-Identifier: Apache-2.0
"""The study of APM: its points are what a run gives, and its files say what the points say."""

import csv

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from tta_bench.cli.study import study as command
from tta_bench.data.dataset import OpenRequest, find_dataset
from tta_bench.errors import BadInputError
from tta_bench.hyperparameters import create_method
from tta_bench.method import Inputs
from tta_bench.models.loading import load_model
from tta_bench.spec import counter_seed
from tta_bench.steps import step
from tta_bench.studies.apm import Plan, study
from tta_bench.studies.apm_files import make_folder, plot, write_csv

PLAN = Plan(
    datasets=("pocket", "pocket-c:fog"),
    images=6,
    updates=(0, 3, 19),
    width_updates=(0, 19),
    lrs=(1e-3,),
    widths=(0.25,),
    pretrained=False,
)


@pytest.fixture(scope="module")
def points():
    told = []
    found = study(PLAN, told.append)
    assert len(told) == 2
    return found


def test_there_is_a_point_for_every_setting_and_number_of_updates(points):
    assert [point.updates for point in points] == [0, 3, 19, 0, 19]
    assert len({point.weights for point in points}) == 2
    assert {point.images for point in points} == {12}
    assert all(point.loss.low <= point.loss.value <= point.loss.high for point in points)
    assert points[0].loss.value > points[1].loss.value > points[2].loss.value
    assert points[2].own.value > points[0].own.value


def test_a_point_is_what_a_step_of_a_run_predicts(points):
    dataset, _, _ = find_dataset("pocket")
    source = load_model("pocket-clip", dataset.class_names, templates=dataset.templates, pretrained=False)
    method, right, same, gaps = create_method("apm"), [], [], []
    for token in PLAN.datasets:
        dataset, corruptions, severities = find_dataset(token)
        (shift,) = dataset.shifts(corruptions, severities or (5,))
        images = dataset.open(OpenRequest(shift))
        x = images.load(list(range(6)), source.preprocess).float() / 255
        drawn = [
            method.draw(source, 1, torch.Generator().manual_seed(counter_seed("draw", 0, "image", name)))
            for name in images.ids[:6]
        ]
        inputs = Inputs(images=x, features=source.encode(x), draws=torch.cat(drawn))
        stepped = step(method, source, {}, inputs, way="native")
        right += (stepped.scores.argmax(1).numpy() == np.asarray(images.labels)[:6]).tolist()
        same += (stepped.scores.argmax(1) == stepped.teacher.argmax(1)).tolist()
        fitted = method.fit(source, {}, inputs, 19)
        elsewhere = method.respond(source, fitted.weights, x.roll(1, 0))
        gaps += torch.cosine_similarity(elsewhere, inputs.features).tolist()
    assert points[2].accuracy.value == pytest.approx(np.mean(right))
    assert points[2].agreement.value == pytest.approx(np.mean(same))
    assert points[2].other.value == pytest.approx(np.mean(gaps), abs=1e-4)
    assert points[2].gain.value == pytest.approx(points[2].accuracy.value - points[2].teacher.value)


def test_the_file_holds_the_points(points, tmp_path):
    write_csv(points, tmp_path / "study.csv")
    with (tmp_path / "study.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(points)
    assert float(rows[4]["loss_high"]) == pytest.approx(points[4].loss.high, rel=1e-4)
    assert int(rows[4]["updates"]) == 19


def test_the_plot_has_a_line_per_setting(points, tmp_path):
    pytest.importorskip("matplotlib")
    plot(points, tmp_path / "study.svg")
    text = (tmp_path / "study.svg").read_text(encoding="utf-8")
    assert "<svg" in text
    assert text.count("58 k weights") == 1


def test_a_method_without_a_student_and_classes_that_differ_are_refused():
    with pytest.raises(BadInputError, match="no fit, respond, student"):
        study(Plan(method="tent"))
    with pytest.raises(BadInputError, match="at least one dataset"):
        study(Plan(datasets=()))


def test_the_command_writes_what_it_says(tmp_path):
    app = typer.Typer()
    app.command()(command)
    arguments = [
        "apm", "--dataset", "pocket", "--limit", "3", "--updates", "2", "--updates", "0", "--lr", "0.01",
        "--width", "0.5", "--set", "weight_std=0.02", "--no-pretrained", "--no-plot", "--output", str(tmp_path),
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "apm.csv" in result.output
    assert "apm.svg" not in result.output
    assert (tmp_path / "apm.csv").read_text(encoding="utf-8").count("\n") == 5


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"lrs": (float("nan"),)}, "lr must be a number above 0, got nan"),
        ({"widths": (1.0, -3.0)}, "width must be a number above 0, got -3.0"),
        ({"updates": (-1,)}, "updates must be 0 or more, got -1"),
    ],
)
def test_settings_that_no_fit_could_have_are_refused(values, sentence):
    with pytest.raises(BadInputError, match=sentence):
        Plan(**values)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    make_folder(tmp_path / "new" / "deep")
    with pytest.raises(BadInputError, match="cannot be made"):
        make_folder(tmp_path / "file" / "below")
