# SPDX-License-Identifier: Apache-2.0
"""Levels of a teacher as targets, and the figures of one image."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tta_bench.cli import app
from tta_bench.errors import IncompatibleError
from tta_bench.studies.apm import Plan, load_images
from tta_bench.studies.levels import study_levels

PLAN = Plan(
    datasets=("pocket",),
    images=6,
    updates=(0, 1, 5),
    lrs=(1e-3,),
    widths=(),
    pretrained=False,
    model="timm/test_vit",
)


def test_the_last_level_is_the_teacher_itself():
    source, (images,) = load_images(PLAN)
    points = study_levels(PLAN)
    assert [point.level for point in points] == list(range(len(source.transformer.norms)))
    right = source.logits(images.x).argmax(1) == images.labels
    assert points[-1].teacher.value == pytest.approx(float(right.double().mean()))
    first = source.head(source.encode_level(images.x, 0)).argmax(1) == images.labels
    assert points[0].teacher.value == pytest.approx(float(first.double().mean()))


def test_a_tower_without_a_class_token_is_refused():
    with pytest.raises(IncompatibleError, match="class token"):
        study_levels(Plan(datasets=("pocket",), images=2, updates=(0,), lrs=(1e-3,), widths=()))


def test_the_command_writes_levels_and_figures(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    result = CliRunner().invoke(
        app,
        ["study", "apm", "--dataset", "pocket", "--limit", "4", "--updates", "3", "--levels", "--model",
         "timm/test_vit", "--no-pretrained", "--figures", str(tmp_path / "a.png"), "--figures-to",
         str(tmp_path / "b.png"), "--output", str(tmp_path / "out")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    with (tmp_path / "out" / "levels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 1
    assert {"level", "accuracy", "teacher", "gain_low"} <= rows[0].keys()
    assert (tmp_path / "out" / "figures.svg").read_text().startswith("<?xml")
    assert torch.is_grad_enabled()
