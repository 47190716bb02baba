# SPDX-License-Identifier: Apache-2.0
"""Bad input gets one sentence, exit code 2 and no traceback."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tta_bench.errors import BadInputError

from ..data.trees import plant  # noqa: TID252  "tests" is no installed package

RUN = ("run", "--method", "source", "--dataset", "pocket")

CASES = {
    "method": (
        ("run", "--method", "tnet", "--dataset", "pocket"),
        "unknown method 'tnet'; did you mean 'tent'",
    ),
    "dataset": (
        ("run", "--method", "tent", "--dataset", "pocket-x"),
        "unknown dataset 'pocket-x'; did you mean",
    ),
    "model": ((*RUN, "--model", "pocket-nb"), "unknown model 'pocket-nb'; did you mean"),
    "timm model": ((*RUN, "--model", "timm/resnet81"), "did you mean"),
    "corruption": (
        ("run", "--method", "source", "--dataset", "pocket-c", "--corruption", "fogg"),
        "unknown corruption 'fogg'; did you mean 'fog'",
    ),
    "corruption in the name": (
        ("run", "--method", "source", "--dataset", "pocket-c:fogg:5"),
        "unknown corruption 'fogg'; did you mean 'fog'",
    ),
    "corruption of a clean set": (
        (*RUN, "--corruption", "fog"),
        "--corruption must go with a corrupted dataset",
    ),
    "severity": ((*RUN, "--severity", "9"), "--severity must be 1 to 5, got 9"),
    "severity in the name": (
        ("run", "--method", "source", "--dataset", "pocket-c:fog:9"),
        "the severity in 'pocket-c:fog:9' must be 1 to 5, or like 1-5 or *, got '9'",
    ),
    "hyper-parameter": (
        ("run", "--method", "tent", "--dataset", "pocket", "--set", "learning_rate=1"),
        "unknown hyper-parameter of tent 'learning_rate'",
    ),
    "near hyper-parameter": (
        ("run", "--method", "tent", "--dataset", "pocket", "--set", "step=2"),
        "did you mean 'steps'",
    ),
    "value": (
        ("run", "--method", "tent", "--dataset", "pocket", "--set", "lr=fast"),
        "hyper-parameter lr of tent: input should be a valid number, unable to parse string as a number, got 'fast'",
    ),
    "choice": (
        ("run", "--method", "tent", "--dataset", "pocket", "--set", "optimizer=rmsprop"),
        "'adam', 'adamw' or 'sgd'",
    ),
    "setting of no method": (
        ("run", "--method", "tent", "--dataset", "pocket", "--set", "apm.lr=1"),
        "unknown method in --set 'apm'",
    ),
    "preset": (
        ("run", "--method", "tent", "--dataset", "pocket", "--preset", "imagenet"),
        "unknown preset of tent 'imagenet'; did you mean 'imagenet-c'",
    ),
    "batchnorm": (
        ("run", "--method", "norm", "--dataset", "pocket", "--model", "pocket-gn"),
        "pocket-bn",
    ),
    "text": (("run", "--method", "clip", "--dataset", "pocket", "--model", "pocket-bn"), "pocket-clip"),
    "limit 0": ((*RUN, "--limit", "0"), "--limit must be at least 1 image per shift, got 0"),
    "limit too large": ((*RUN, "--limit", "99999"), "only 2000 are there"),
    "limit and subset": ((*RUN, "--limit", "5", "--subset", "full"), "give one of them"),
    "reset": ((*RUN, "--reset", "epoch"), "--reset must be one of image, batch, shift, never"),
    "device": ((*RUN, "--device", "tpu"), "--device must be one of"),
    "precision": ((*RUN, "--precision", "float8"), "--precision must be one of float32, float64, bfloat16"),
    "severities": ((*RUN, "--severity", "1,4-3"), "--severity must be like 5, 1-5 or 1,3, got '1,4-3'"),
    "superscript": ((*RUN, "--subset", "first-²"), "--subset must be full, first-N"),
    "workers": ((*RUN, "--workers", "-2"), "--workers must be 0 or more, got -2"),
    "seed": ((*RUN, "--seed", str(2**63)), "--seed must be 0 or more and below 2**63"),
    "protocol": (
        ("run", "--method", "apm", "--dataset", "pocket", "--set", "reference_quirk=carry_adam"),
        "needs reset 'never' and batch size 1, got reset 'image' and batch size 64",
    ),
    "no method": (("run", "--dataset", "pocket"), "--method must name at least one method"),
    "no dataset": (("run", "--method", "source"), "--dataset must name at least one"),
    "plugin file": (
        (*RUN, "--plugin", "nowhere.py"),
        "expected a Python file, got 'nowhere.py', which does not exist",
    ),
    "config file": ((*RUN, "--config", "nowhere.yaml"), "--config expects a YAML file"),
    "describe": (("describe", "tentt"), "unknown method or dataset 'tentt'; did you mean 'tent'"),
    "leaderboard": (("leaderboard", "nowhere"), "there is no run folder at nowhere"),
    "compare": (("compare", "nowhere", "elsewhere"), "there is no run folder at nowhere"),
    "parity": (("parity", "nowhere"), "nowhere"),
}


@pytest.mark.parametrize(("arguments", "sentence"), CASES.values(), ids=CASES)
def test_bad_input_is_one_sentence(tta_bench, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    done = tta_bench(*arguments)
    assert done.code == 2
    assert sentence in done.err
    assert done.err.startswith("tta-bench: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err + done.out
    assert not Path("runs/cells").exists()


def test_a_foreign_folder_is_left_alone(tta_bench, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    done = tta_bench(*RUN, "--limit", 4, "--output", tmp_path)
    assert done.code == 2
    assert "thesis.tex" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_refused_for_users(tta_bench, tmp_path):
    tmp_path.chmod(0o500)
    done = tta_bench(*RUN, "--output", tmp_path / "runs")
    assert done.code == 2
    assert "should be writable and is not" in done.err
    assert done.err.count("\n") == 1


def test_a_path_that_cannot_be_a_folder_is_refused(tta_bench, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "runs", "/proc/runs"):
        done = tta_bench(*RUN, "--limit", 4, "--output", output)
        assert done.code == 2, output
        assert done.err.count("\n") == 1


def test_a_newer_manifest_is_refused_with_the_way_out(tta_bench, tmp_path):
    folder = tmp_path / "runs"
    assert tta_bench(*RUN, "--limit", 4, "--output", folder).code == 0
    path = next(folder.glob("cells/*/manifest.json"))
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"schema_version": 99}))
    for command in ((*RUN, "--limit", 4, "--output", folder), ("leaderboard", folder)):
        done = tta_bench(*command)
        assert done.code == 2
        assert "newer tta-bench (schema 99" in done.err


@pytest.mark.filterwarnings("default::tta_bench.errors.Caution")
def test_a_half_written_manifest_is_named_left_out_and_made_again(tta_bench, tmp_path):
    folder = tmp_path / "runs"
    assert tta_bench(*RUN, "--limit", 4, "--output", folder).code == 0
    path = next(folder.glob("cells/*/manifest.json"))
    path.write_text(path.read_text()[:40])
    done = tta_bench("leaderboard", folder, "--output", tmp_path / "table.csv")
    assert done.code == 0
    assert f"cell {path.parent.name} in {folder} is damaged" in done.err
    assert "incomplete" in done.err
    done = tta_bench(*RUN, "--limit", 4, "--output", folder)
    assert done.code == 0
    assert "1 cell computed, 0 reused" in done.out
    assert f"set aside as {path.parent}.damaged and is computed again" in done.err
    assert tta_bench("leaderboard", folder, "--output", tmp_path / "table.csv").err == ""


def test_unknown_options_of_a_configuration_are_named(tta_bench, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("methods: [source]\ndatasets: [pocket]\nbatchsize: 4\n")
    done = tta_bench("run", "--config", path)
    assert done.code == 2
    assert "'batchsize'; did you mean 'batch-size'" in done.err
    path.write_text("methods: 3\n")
    assert "option methods in" in tta_bench("run", "--config", path).err


EXACT = """
from dataclasses import dataclass

from tta_bench.method import Adapted, Card, Method


@dataclass(frozen=True)
class Exact(Method):
    card = Card(paper="none", reset="image", independent=True, precision=frozenset({"float64"}))

    def adapt(self, source, state, inputs):
        return Adapted(state, source.logits(inputs.images))
"""


def test_a_method_runs_in_the_precisions_of_its_card_alone(tta_bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("exact.py").write_text(EXACT, encoding="utf-8")
    run = ("run", "--plugin", "exact.py", "--method", "exact", "--dataset", "pocket", "--limit", "8")
    refused = tta_bench(*run, "--precision", "bfloat16")
    assert refused.code == 2
    assert "exact is good for --precision float64, got 'bfloat16'; choose one of those" in refused.err
    assert tta_bench(*run, "--precision", "float64").code == 0


CONFIGS = {
    "no YAML": (
        b"methods: [source\ndatasets: ]]\n  - x: {",
        "run.yaml cannot be read: while parsing a flow sequence",
    ),
    "not text": ("methods: [é]".encode("latin-1"), "run.yaml cannot be read: 'utf-8' codec"),
    "no seeds": (b"methods: [source]\ndatasets: [pocket]\nseeds: []", "--seed must name at least one"),
    "limit": (
        b"methods: [source]\ndatasets: [pocket]\nlimit: true",
        "option limit in run.yaml must be a whole number, got True",
    ),
    "severities": (b"methods: [source]\ndatasets: [pocket-c]\nseverities: [true]", "got True"),
}


@pytest.mark.parametrize(("content", "sentence"), CONFIGS.values(), ids=CONFIGS)
def test_a_bad_configuration_is_one_sentence(tta_bench, tmp_path, monkeypatch, content, sentence):
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_bytes(content)
    done = tta_bench("run", "--config", "run.yaml")
    assert done.code == 2
    assert sentence in done.err
    assert done.err.count("\n") == 1


def test_a_folder_is_no_configuration(tta_bench, tmp_path):
    done = tta_bench("run", "--config", tmp_path)
    assert done.code == 2
    assert f"--config expects YAML, but {tmp_path} cannot be read" in done.err


def test_a_damaged_run_folder_is_one_sentence(tta_bench, tmp_path):
    folder = tmp_path / "runs"
    assert tta_bench(*RUN, "--limit", 4, "--output", folder).code == 0
    manifest = next(folder.glob("cells/*/manifest.json"))
    manifest.unlink()
    manifest.mkdir()
    commands = ((*RUN, "--limit", 4, "--output", folder), ("leaderboard", folder))
    for command in commands:
        done = tta_bench(*command)
        assert done.code == 2
        assert f"{manifest} should be a readable file and is not" in done.err
        assert done.err.count("\n") == 1
    shutil.rmtree(folder / "cells")
    (folder / "cells").write_text("")
    for command in commands:
        done = tta_bench(*command)
        assert done.code == 2
        assert done.err.count("\n") == 1


@pytest.mark.parametrize("value", ["nan", "-1", "soon"])
def test_seconds_between_flushes_are_a_number(tta_bench, tmp_path, monkeypatch, value):
    monkeypatch.setenv("TTA_BENCH_FLUSH_SECONDS", value)
    done = tta_bench(*RUN, "--limit", 4, "--output", tmp_path / "runs")
    assert done.code == 2
    assert f"TTA_BENCH_FLUSH_SECONDS must be a number of seconds, 0 or more, got '{value}'" in done.err


@pytest.mark.parametrize("allowed", [False, True])
def test_a_run_over_distributed_and_generated_images_is_refused_unless_that_is_allowed(
    tta_bench, tmp_path, monkeypatch, allowed
):
    monkeypatch.setenv("TTA_BENCH_DATA", str(tmp_path))
    plant("imagenet-c", tmp_path)
    plant("imagenet", tmp_path)

    def load_model(*arguments, **options):
        raise BadInputError("the check went through")

    monkeypatch.setattr("tta_bench.engine.objects.load_model", load_model)
    command = [
        "run",
        "--method",
        "source",
        "--dataset",
        "imagenet-c",
        "--severity",
        3,
        "--output",
        tmp_path / "runs",
    ]
    command += ["--corruption", "fog", "--corruption", "snow"]
    done = tta_bench(*command, *(["--allow-incomplete"] if allowed else []))
    assert done.code == 2
    if allowed:
        assert "the check went through" in done.err
    else:
        assert "generated from imagenet (imagenet-c:snow:3) and as distributed (imagenet-c:fog:3)" in done.err
        assert "--allow-incomplete" in done.err
