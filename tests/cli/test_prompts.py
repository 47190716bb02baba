# SPDX-License-Identifier: Apache-2.0
"""One switch chooses the sentences of student, teacher and baseline, and the protocol card states them."""

import hashlib
import json
import re

import numpy as np
import pytest

from tta_bench import registry
from tta_bench.prompts import prompt_names
from tta_bench.records.frame import read_frame
from tta_bench.records.store import Store
from tta_bench.reports.csv_file import read_csv

RUN = ("run", "--dataset", "pocket", "--limit", "6", "--batch-size", "3", "--no-memory", "--no-pretrained")


def test_prompts_are_no_hyper_parameter(tta_bench):
    for setting in ("templates=ensemble", "clip.templates=ensemble", "prompts=single"):
        done = tta_bench(*RUN, "--method", "clip", "--set", setting)
        assert done.code == 2
        assert "--prompts NAME" in done.err, done.err
        assert "Traceback" not in done.err


def facts(folder):
    """Return each method's protocol fact, its predictions, those of its source and of its teacher."""
    store, frame = Store(str(folder)).open(create=False), read_frame(str(folder))
    found = {}
    for manifest in store.manifests():
        rows = frame[frame["cell"] == manifest.id].sort_values("position")
        found[manifest.cell.method] = (manifest.protocol.prompts, rows)
    return found


def hashed(texts):
    text = json.dumps(list(texts), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("choice", ["dataset", "single", "file"])
def test_student_teacher_and_baseline_use_the_sentences_that_the_card_states(choice, tta_bench, tmp_path):
    dataset = registry.load("datasets", "pocket")
    templates = {
        "dataset": dataset.templates, "single": ("a photo of a {}.",), "file": ("the {} of my house",),
    }[choice]  # fmt: skip
    (tmp_path / "mine.txt").write_text("\n".join(templates), encoding="utf-8")
    switch = {"dataset": (), "single": ("--prompts", "single"), "file": ("--prompts", tmp_path / "mine.txt")}
    methods = ("--method", "source", "--method", "clip", "--method", "apm", "--model", "pocket-clip")
    done = tta_bench(*RUN, *methods, *switch[choice], "--output", tmp_path / "runs")
    assert done.code == 0, done.err
    expected = hashed(one.format(name) for one in templates for name in dataset.class_names)
    found = facts(tmp_path / "runs")
    source = found["source"][1]["prediction"].tolist()
    for name in ("source", "clip", "apm"):
        fact, rows = found[name]
        assert fact == expected, name
        assert rows["source_prediction"].tolist() == source
    assert found["clip"][1]["prediction"].tolist() == source
    assert found["apm"][1]["teacher_prediction"].tolist() == source
    confidence = found["source"][1]["confidence"]
    row = next(row for row in read_csv(tmp_path / "runs" / "leaderboard.csv") if row.method == "clip")
    name = {"dataset": "dataset", "single": "single", "file": "mine.txt"}[choice]
    assert (row.prompt_set, row.prompts, row.category) == (name, expected, "episodic")
    assert re.search(r"threads?, torch", row.machine)
    assert np.allclose(found["apm"][1]["teacher_confidence"], confidence, rtol=1e-4)


def test_the_list_shows_every_set(tta_bench):
    done = tta_bench("list", "prompts", "--csv")
    assert done.code == 0
    assert [line.split(",")[0] for line in done.out.splitlines()[1:]] == list(prompt_names())
