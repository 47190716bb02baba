# SPDX-License-Identifier: Apache-2.0
"""Options in files: under the names of the command line, all of them, there and back."""

import pytest

from tta_bench.config import effective_config, file_options, key_of, read_config, read_options
from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.spec import Controls, Request, SuiteUse, make_request
from tta_bench.spec.options import options_of, read_values

REQUEST = Request(
    methods=("tent", "eata"), datasets=("pocket-c",), severities=(1, 5), limit=12, seeds=(0, 3), reset="batch",
    settings=("tent.lr=0.01",), presets={"": "a", "tent": "imagenet-c"}, bad_image="skip", pretrained=False, workers=0,
)  # fmt: skip


def test_what_is_in_effect_is_written_and_read_back(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(effective_config(REQUEST, Controls(output="there", memory=False)), encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    for line in ("method: [tent, eata]", "set: [tent.lr=0.01]", "on-bad-image: skip", "preset: [a, tent=imagenet-c]",
                 "pretrained: false", "output: there", "device: auto"):  # fmt: skip
        assert line in text.splitlines()
    read = read_config(path)
    kept = {name: read.pop(name) for name in options_of(Controls) if name in read}
    assert make_request(read) == REQUEST
    assert Controls(**read_values(Controls, kept)) == Controls(output="there", memory=False)


def test_a_suite_is_written_with_what_was_given_beside_it(tmp_path):
    request = Request(("tent",), ("pocket",), limit=9, suite=SuiteUse("pocket-online", 2, ("limit",)))
    path = tmp_path / "run.yaml"
    path.write_text(effective_config(request, Controls()), encoding="utf-8")
    read = read_config(path)
    assert (read["suite"], read["limit"]) == ("pocket-online", 9)
    assert "methods" not in read


@pytest.mark.parametrize("form", [key_of, lambda one: key_of(one).replace("-", "_"), lambda one: one.name])
def test_every_option_is_read_under_each_of_its_names(form):
    for one in [*options_of(Request).values(), *options_of(Controls).values()]:
        assert file_options()[form(one)].name in (one.name, "presets")


def test_presets_are_given_in_any_form():
    for value in ({"tent": "x", "": "y"}, ["y", "tent=x"]):
        assert read_options({"preset": value}, "f") == {"presets": {"tent": "x", "": "y"}}
    assert read_options({"preset": "y"}, "f") == {"presets": {"": "y"}}
    request = Request(("tent",), ("pocket",), presets={"tent": "x", "": "y"})
    assert (request.preset_of("tent"), request.preset_of("eata")) == ("x", "y")


@pytest.mark.parametrize(
    ("content", "error", "sentence"),
    [
        ({"mehtod": "tent"}, UnknownNameError, "unknown option in f 'mehtod'; did you mean 'method'"),
        (
            {"method": "tent", "methods": "eata"},
            BadInputError,
            "f gives method and methods, which are one option",
        ),
        ({"preset": ["a", "b"]}, BadInputError, "option preset in f .*got a and b"),
        ({"seed": "4-0"}, BadInputError, "option seed in f must be like 0, 0-4 or 0,2, got '4-0'"),
        ({"batch-size": "x"}, BadInputError, "option batch-size in f must be a whole number, got 'x'"),
    ],
)
def test_what_a_file_may_not_say(content, error, sentence):
    with pytest.raises(error, match=sentence):
        read_options(content, "f")


@pytest.mark.parametrize(
    ("given", "seeds"),
    [("0-4", (0, 1, 2, 3, 4)), (["0,2", "7"], (0, 2, 7)), (3, (3,)), ([1, 1], (1,)), ("5", (5,))],
)
def test_seeds_may_be_ranges(given, seeds):
    assert make_request({"methods": "tent", "datasets": "pocket", "seeds": given}).seeds == seeds
