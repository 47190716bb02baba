# SPDX-License-Identifier: Apache-2.0
"""Files of options on the command line, presets for each method, and values in the form that is typed."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from tta_bench import registry
from tta_bench.hyperparameters import create_method, default_of, method_class, written

RUN = ("run", "--method", "source", "--dataset", "pocket", "--limit", "6")


def test_a_file_holds_any_option_and_the_command_line_wins(tta_bench, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "method: [source]\ndataset: pocket\nlimit: 30\nbatch-size: 7\non-bad-image: skip\nmemory: false\nset: []\n"
        f"output: {tmp_path / 'there'}\n"
    )
    done = tta_bench("run", "--config", path, "--limit", "5", "--print-config")
    assert done.code == 0, done.err
    shown = yaml.safe_load(done.out)
    assert (shown["limit"], shown["batch-size"], shown["memory"]) == (5, 7, False)
    assert shown["output"].endswith("there")
    path.write_text(done.out)
    assert tta_bench("run", "--config", path, "--print-config").out == done.out


def test_a_run_folder_holds_the_options_that_it_came_from(tta_bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tta_bench(*RUN).code == 0
    (path,) = Path("runs/plans").glob("*.yaml")
    again = tta_bench("run", "--config", path)
    assert "0 cells computed, 1 reused" in again.out
    assert len(list(Path("runs/plans").glob("*.yaml"))) == 1


def test_a_file_may_name_a_suite(tta_bench, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("suite: pocket-online\nlimit: 3\n")
    done = tta_bench("run", "--config", path, "--dry-run")
    assert "suite pocket-online" in done.out
    assert "with other limit" in done.out


def test_presets_are_for_single_methods(tta_bench):
    words = ("run", "--method", "tent", "--method", "norm", "--dataset", "pocket", "--dry-run")
    done = tta_bench(*words, "--preset", "tent=imagenet-c")
    assert done.code == 0, done.err
    assert done.out.count("[") == 1, "norm stands at its defaults"
    for preset, sentence in [
        (("a", "b"), "--preset should name one for all methods, got a and b; write METHOD=NAME"),
        (("tent=a", "tent=b"), "--preset should name one for tent, got a and b"),
        (("eata=x",), "unknown method in --preset 'eata'"),
        (("tent=imagnet",), "unknown preset of tent 'imagnet'; did you mean"),
        (("tent=",), "--preset must be like imagenet-c or tent=imagenet-c, got 'tent='"),
    ]:
        done = tta_bench(*words, *(word for one in preset for word in ("--preset", one)))
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert sentence in done.err


def test_seeds_are_a_range_on_the_command_line(tta_bench):
    done = tta_bench(*RUN, "--seed", "0-4", "--dry-run")
    assert "5 cells" in done.out
    assert "seed 0, 1, 2, 3, 4" in done.out
    assert "--seed must be like 0, 0-4 or 0,2, got 'a'" in tta_bench(*RUN, "--seed", "a").err


@pytest.mark.parametrize("name", registry.registered("methods"))
def test_what_describe_shows_is_what_set_accepts(name):
    cls = method_class(name)
    made = [cls(), *(create_method(name, preset=preset) for preset in cls.presets)]
    for method in made:
        values = {field.name: getattr(method, field.name) for field in dataclasses.fields(cls)}
        assert create_method(name, {key: written(value) for key, value in values.items()}) == method


def test_describe_and_the_error_of_set_show_the_form_that_is_accepted(tta_bench):
    cls = method_class("tent")
    field = next(one for one in dataclasses.fields(cls) if one.name == "lr")
    assert f"lr={written(default_of(field))}" in tta_bench(*RUN, "--method", "tent", "--set", "tent.lr=x").err
    lines = tta_bench("describe", "apm").out.split("hyper-parameters")[1].splitlines()
    defaults = {
        line.split()[0]: line.split()[1] for line in lines if line.strip() and not line.startswith(" ")
    }
    assert (defaults["input"], defaults["read"]) == ("image", "published")
    assert "None" not in defaults.values()
    assert json.loads(written({"a": 1})) == {"a": 1}
    assert [written(one) for one in (None, True, (1, 2), ("a",), (), ((1, 2),), "x", 0.5)] == [
        "none", "true", "1,2", "a", "[]", "[[1, 2]]", "x", "0.5",
    ]  # fmt: skip
