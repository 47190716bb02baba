# SPDX-License-Identifier: Apache-2.0
"""Every committed result validates, and says how it was made."""

import csv
import json
import re
from pathlib import Path

import pytest

from tta_bench.errors import BadInputError
from tta_bench.reports.leaderboard import validate_leaderboard

RESULTS = Path(__file__).parents[1] / "results"
APM = RESULTS.parent / "docs" / "apm"
LEADERBOARDS = [*sorted(RESULTS.glob("pocket/*.csv")), APM / "pocket-c.csv"]
BENCHMARKS = sorted(RESULTS.glob("benchmarks/*.csv"))
POCKET = ("pocket", "pocket-c", "pocket-v2", "pocket-hard", "pocket-sketch", "pocket-rendition")
FIVE = ("source", "norm", "tent", "clip", "apm")


@pytest.mark.parametrize("path", LEADERBOARDS, ids=lambda path: path.name)
def test_a_committed_leaderboard_validates(path):
    validate_leaderboard(str(path))
    told = (APM.with_suffix(".md") if path.parent == APM else path.with_name("README.md")).read_text("utf-8")
    assert path.name in told
    assert "tta-bench run" in told


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_a_committed_benchmark_names_its_conditions_and_its_verdicts_follow_from_its_values(path):
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert rows
    for row in rows:
        conditions = row["conditions"] if "conditions" in row else f"{row['torch']} {row['date']}"
        assert re.search(r"2\.\d+\.\d+.*\d{4}-\d\d-\d\d", conditions), row
        assert int(row["threads"]) >= 1
        if "goal" in row:
            value, limit = float(row["value"]), float(row["goal"][2:])
            met = value <= limit if row["goal"].startswith("<=") else value >= limit
            assert row["verdict"] == ("met" if met else "missed"), row


def test_the_apm_document_says_what_its_tables_say():
    text = APM.with_suffix(".md").read_text(encoding="utf-8")
    with (RESULTS / "benchmarks" / "apm.csv").open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            seconds = float(row["cpu_s_per_image"])
            told = (
                f"{seconds:.0f}" if seconds > 100 else f"{seconds:.1f}" if seconds > 1 else f"{seconds:.4f}"
            )
            assert re.search(rf"\| {told} \| {row['peak_mib'] or '-'} \|", text), row
    with (APM / "cost.csv").open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            assert re.search(
                rf"\| {float(row['counted']) / 1e9:.2f}|\| {float(row['counted']) / 1e9:.1f} ", text
            ), row
            assert not row["formula"] or abs(float(row["formula"]) / float(row["counted"]) - 1) < 0.02
    with (APM / "apm.csv").open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            assert float(row["accuracy_low"]) <= float(row["accuracy"]) <= float(row["accuracy_high"])
            assert float(row["gain_low"]) <= 0


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
