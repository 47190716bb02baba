# SPDX-License-Identifier: Apache-2.0
"""Every committed result validates, and says how it was made."""

import csv
import json
from pathlib import Path

import pytest

from tta_bench.errors import BadInputError
from tta_bench.reports.leaderboard import validate_leaderboard

RESULTS = Path(__file__).parents[1] / "results"
LEADERBOARDS = sorted(RESULTS.glob("pocket/*.csv"))
POCKET = ("pocket", "pocket-c", "pocket-v2", "pocket-hard", "pocket-sketch", "pocket-rendition")
FIVE = ("source", "norm", "tent", "clip", "apm")


@pytest.mark.parametrize("path", LEADERBOARDS, ids=lambda path: path.name)
def test_a_committed_leaderboard_validates(path):
    validate_leaderboard(str(path))
    readme = path.with_name("README.md").read_text(encoding="utf-8")
    assert path.name in readme
    assert "tta-bench run" in readme


def test_the_pocket_leaderboard_has_five_methods_on_six_datasets():
    with (RESULTS / "pocket" / "leaderboard.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {(row["method"], row["dataset"]) for row in rows} == {(m, d) for m in FIVE for d in POCKET}
    assert all(row["status"] == "complete" and row["demonstration"] == "true" for row in rows)
    conditions = json.loads((RESULTS / "pocket" / "conditions.json").read_text(encoding="utf-8"))
    assert {"device_name", "threads", "torch_build"} <= set(conditions)


def test_a_damaged_leaderboard_does_not_validate(tmp_path):
    text = (RESULTS / "pocket" / "leaderboard.csv").read_text(encoding="utf-8")
    header, first, *rest = text.splitlines()
    columns = header.split(",")
    damaged = first.split(",")
    damaged[columns.index("accuracy")] = "140.0"
    path = tmp_path / "leaderboard.csv"
    path.write_text("\n".join([header, ",".join(damaged), *rest]) + "\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="accuracy"):
        validate_leaderboard(str(path))
