# SPDX-License-Identifier: Apache-2.0
"""The committed sample recomputed here, and what is said where it differs."""

import csv
from importlib import import_module
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tta_bench.cli import app
from tta_bench.errors import BadInputError
from tta_bench.pocket.scenes import verify
from tta_bench.reproduction import recompute as recomputing
from tta_bench.reproduction.recompute import margins_of, recompute
from tta_bench.reproduction.sample import Cell, Sample, read_sample, write_sample
from tta_bench.reproduction.verdict import NEAR, Mismatch, compare

LEADERBOARD = Path(__file__).parents[2] / "results" / "pocket" / "leaderboard.csv"
SMALL = {"methods": ["source", "tent"], "datasets": ["pocket-c:fog:5"], "subset": "first-20"}


def cell(predictions=(3, 4, 5), margins=(0.5, 1e-5, 0.3), name="tent · pocket-bn · pocket", **changes):
    facts = {"accuracy": 1.0, "weights": "w", "images": "i", "order": "o", "pixels": "p"}
    return Cell(name=name, predictions=tuple(predictions), margins=tuple(margins), **(facts | changes))


def sample(*cells):
    return Sample({}, {"processor": "one", "torch": "2.6.0"}, cells)


@pytest.mark.slow
@pytest.mark.portable
def test_the_committed_sample_is_what_this_machine_gives():
    committed = read_sample()
    verdict = compare(committed, recompute(committed.asked), recomputing.made_on())
    assert verdict.label != "different", "\n".join(verdict.sentences())


def test_the_committed_sample_is_that_of_the_committed_table():
    with LEADERBOARD.open(encoding="utf-8", newline="") as handle:
        table = {(row["method"], row["shifts"]): row for row in csv.DictReader(handle)}
    committed = read_sample()
    compared = 0
    for one in committed.cells:
        row = table.get((one.name.split(" · ")[0], one.shift))
        if row is not None:
            compared += 1
            assert float(row["accuracy"]) == pytest.approx(one.accuracy, abs=1e-6), one.name
            assert one.weights.startswith(row["weights"]), one.name
    assert compared == 10
    assert {"processor", "instructions", "torch"} <= set(committed.made_on)


def test_a_recomputation_is_repeated_exactly_whatever_the_number_of_threads():
    before = torch.get_num_threads()
    first = recompute(SMALL)
    try:
        torch.set_num_threads(2)
        again = recompute(SMALL)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert first == again
    assert [one.name for one in first] == [
        "source · pocket-bn · pocket-c:fog:5",
        "tent · pocket-bn · pocket-c:fog:5",
    ]


def test_a_sample_survives_its_file(tmp_path):
    made = recomputing.sample_of(SMALL, {"processor": "one"})
    write_sample(made, tmp_path / "sample.json")
    read = read_sample(tmp_path / "sample.json")
    assert (read.asked, read.made_on) == (made.asked, made.made_on)
    assert compare(read, made.cells, made.made_on).label == "equal"
    for old, new in zip(made.cells, read.cells, strict=True):
        assert new._replace(margins=()) == old._replace(margins=())
        assert all(
            b == pytest.approx(a, rel=0.06) for a, b in zip(old.margins, new.margins, strict=True) if a < 0.02
        )


def test_what_is_no_sample_is_refused(tmp_path):
    for text in (None, "{", "{}", '{"asked": {}, "made_on": {}, "cells": [{"name": "x"}]}'):
        path = tmp_path / "sample.json"
        if text is not None:
            path.write_text(text, encoding="utf-8")
        with pytest.raises(BadInputError, match="expected a sample that"):
            read_sample(path)


def test_equal_predictions_are_equal_on_any_machine():
    verdict = compare(sample(cell()), [cell()], {"processor": "two", "torch": "2.15.0"})
    assert verdict.label == "equal"
    assert verdict.sentences() == ["equal: all 3 predictions are those of the committed sample"]


def test_a_near_tie_on_both_machines_is_told_with_its_margin():
    verdict = compare(sample(cell()), [cell((3, 9, 5), (0.5, 2e-4, 0.3))], {})
    assert verdict.label == "near-ties"
    assert verdict.sentences()[0] == "equal but for 1 near-tie in 3 predictions"
    assert "image 1: class 4 there, 9 here, margin 0.0002" in verdict.sentences()[1]


@pytest.mark.parametrize("margins", [(0.5, NEAR * 1.1, 0.3), (0.5, 0.9, 0.3)])
def test_a_prediction_that_no_rounding_explains_is_a_difference(margins):
    for there, here in ((cell(), cell((3, 9, 5), margins)), (cell(margins=margins), cell((3, 9, 5)))):
        verdict = compare(sample(there), [here], {"processor": "two", "torch": "2.6.0"})
        assert verdict.label == "different"
        told = "\n".join(verdict.sentences())
        assert "1 of 3 predictions differ" in told
        assert "processor one there, two here" in told
        assert "torch 2.6.0" not in told


@pytest.mark.parametrize("fact", ["weights", "images", "order", "pixels"])
def test_other_inputs_are_a_difference_even_where_predictions_agree(fact):
    verdict = compare(sample(cell()), [cell(**{fact: "x"})], {})
    assert verdict.label == "different"
    assert fact in "\n".join(verdict.sentences())


def test_pixels_that_were_corrupted_on_the_fly_may_differ_in_bits():
    name = "tent · pocket-bn · pocket-c:fog:5"
    assert compare(sample(cell(name=name)), [cell(name=name, pixels="x")], {}).label == "equal"


def test_a_cell_or_an_image_that_is_missing_is_a_difference():
    assert "no images here" in "\n".join(compare(sample(cell()), [], {}).sentences())
    assert "2 images here" in "\n".join(compare(sample(cell()), [cell((3, 4), (1, 1))], {}).sentences())


def test_margins_are_differences_of_probabilities():
    scores = torch.tensor([[0.0, 0.0, -50.0], [2.0, -60.0, -60.0], [float("nan"), 1.0, 1.0]])
    assert margins_of(scores, "logits").tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-9)
    assert margins_of(torch.tensor([[0.7, 0.2, 0.1]]), "probabilities").tolist() == pytest.approx([0.5])


def test_doctor_says_how_far_it_agrees_and_exits_by_it(monkeypatch):
    made = recomputing.sample_of(SMALL, {"processor": "elsewhere"})
    monkeypatch.setattr("tta_bench.reproduction.sample.read_sample", lambda: made)
    done = CliRunner().invoke(app, ["doctor", "--reproduce"])
    assert done.exit_code == 0, done.output
    assert "equal: all 40 predictions" in done.output
    one = made.cells[0]
    wrong = one._replace(
        predictions=((one.predictions[0] + 1) % 16, *one.predictions[1:]), margins=(1.0,) * 20
    )
    monkeypatch.setattr(
        "tta_bench.reproduction.sample.read_sample", lambda: made._replace(cells=(wrong, made.cells[1]))
    )
    done = CliRunner().invoke(app, ["doctor", "--reproduce"])
    assert done.exit_code == 1
    assert "different: 1 of 40 predictions differ" in done.output
    assert "processor elsewhere there" in done.output


def test_doctor_records_a_sample(tmp_path, monkeypatch):
    made = Sample(SMALL, {}, ())
    monkeypatch.setattr("tta_bench.reproduction.sample.read_sample", lambda: made)
    done = CliRunner().invoke(app, ["doctor", "--record", str(tmp_path / "sample.json")])
    assert done.exit_code == 0, done.output
    assert len(read_sample(tmp_path / "sample.json").cells) == 2


def test_doctor_describes_what_is_here(tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    cache.mkdir()
    (cache / "weights.bin").write_bytes(b"x" * 3 * 2**20)
    monkeypatch.setenv("TTA_BENCH_CACHE", str(cache))
    monkeypatch.setenv("TTA_BENCH_DATA", str(tmp_path / "nothing"))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0, done.output
    assert torch.__version__.partition("+")[0] in done.output
    assert "3.0 MiB in 1 file" in done.output
    assert "not there" in done.output
    assert "none; `tta-bench data list`" in done.output


def test_a_split_that_is_not_checked_is_not_rendered(monkeypatch):
    rendered = []
    monkeypatch.setattr(
        verify, "measured_sha256", lambda split: rendered.append(split) or verify.PUBLISHED_SHA256[split]
    )
    assert verify.check_hashes(["v2"]) == ()
    assert rendered == ["v2"]


def test_a_near_tie_is_half_a_percent_of_probability():
    assert [Mismatch("a", 0, 1, 2, margin).near for margin in (0.0, 0.005, 0.0051)] == [True, True, False]


@pytest.mark.parametrize(
    ("revision", "told"), [(None, "none: not run from a git checkout"), ("abc123+", "abc123+")]
)
def test_doctor_says_which_revision_it_is(monkeypatch, revision, told):
    monkeypatch.setattr("tta_bench.engine.machine.revision", lambda: revision)
    assert dict(import_module("tta_bench.cli.doctor")._machine())["revision"] == told
