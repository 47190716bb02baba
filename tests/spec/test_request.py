# SPDX-License-Identifier: Apache-2.0
"""What can be asked of a run, and what is refused."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tta_bench.errors import BadInputError
from tta_bench.spec import (
    Controls,
    Request,
    canonical,
    counter_seed,
    digest,
    limit_to_subset,
    make_request,
    parse_setting,
    parse_severities,
    settings_for,
    subset_size,
)
from tta_bench.spec.options import options_of


@pytest.mark.parametrize(
    ("texts", "expected"),
    [(["5"], (5,)), (["1-5"], (1, 2, 3, 4, 5)), (["1,3", "5"], (1, 3, 5)), (["3", "3"], (3,))],
)
def test_severities_are_read_and_ordered(texts, expected):
    assert parse_severities(texts) == expected


@pytest.mark.parametrize("text", ["", "x", "1-", "-", "one,two", "²", "1,4-3"])
def test_unreadable_severities_are_refused(text):
    with pytest.raises(BadInputError, match="severities must be like"):
        parse_severities([text])


def test_a_range_of_severities_that_are_not_there_is_refused_at_once():
    with pytest.raises(BadInputError, match="severities must be 1 to 5, got 99999999999"):
        parse_severities(["1-99999999999"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"methods": ()}, "methods must name"),
        ({"datasets": ()}, "datasets must name"),
        ({"severities": (9,)}, "severities must be 1 to 5, got 9"),
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"reset": "epoch"}, "reset must be one of image, batch, shift, never, got 'epoch'"),
        ({"precision": "float8"}, "precision must be one of"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda"),
        ({"seeds": (-1,)}, "seeds must be 0 or more"),
        ({"seeds": (2**63,)}, "seeds must be 0 or more and below"),
        ({"seeds": ()}, "seeds must name at least one"),
        ({"severities": ()}, "severities must name at least one"),
        ({"workers": -2}, "workers must be 0 or more, got -2"),
        ({"data_seed": -1}, "data_seed must be 0 or more"),
        ({"scenario": "mixed"}, "scenario must be one of iid, sequence, got 'mixed'"),
        ({"settings": ("lr",)}, "settings must be like lr=1e-4 or tent.lr=1e-4, got 'lr'"),
        ({"limit": 3, "subset": "full"}, "limit and subset say the same thing"),
        ({"subset": "first-²"}, "subset must be"),
        ({"subset": "some-5"}, "subset must be"),
        ({"subset": "first-0"}, "limit must be at least 1"),
        ({"limit": 0}, "limit must be at least 1"),
    ],
)
def test_a_request_refuses_what_no_run_accepts(changes, sentence):
    with pytest.raises(BadInputError, match=sentence):
        Request(**({"methods": ("source",), "datasets": ("pocket",)} | changes))


def test_limits_and_subsets_are_one_thing():
    assert limit_to_subset(12) == "first-12"
    assert subset_size("first-12") == subset_size("seeded-12") == 12
    assert subset_size("full") is None
    with pytest.raises(BadInputError, match="limit must be at least 1 image per shift, got 0"):
        limit_to_subset(0)


def test_settings_go_to_the_method_they_name():
    settings = ["lr=1", "tent.lr=2", "apm.iterations=3"]
    assert settings_for("tent", settings) == {"lr": "2"}
    assert settings_for("apm", settings) == {"lr": "1", "iterations": "3"}
    assert parse_setting("shot-im.lr=a=b") == ("shot-im", "lr", "a=b")
    for text in ("lr", "=1", "tent.=1"):
        with pytest.raises(BadInputError, match="settings must be like"):
            settings_for("tent", [text])


def test_an_option_is_given_in_any_form_that_it_takes():
    made = make_request(
        {"methods": "tent", "datasets": ["pocket"], "severities": "1-3", "seeds": 4, "settings": {"tent.lr": 0.1},
         "limit": None, "presets": {"tent": "x"}, "models": ("a", "b")}
    )  # fmt: skip
    assert made == Request(
        methods=("tent",), datasets=("pocket",), severities=(1, 2, 3), seeds=(4,), settings=("tent.lr=0.1",),
        presets={"tent": "x"}, models=("a", "b"),
    )  # fmt: skip
    assert Request(("tent",), ("pocket",), limit=7).chosen_subset == "first-7"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"limit": True}, "limit must be a whole number, got True"),
        ({"seeds": [0, "x"]}, "seeds must be like 0, 0-4 or 0,2, got 'x'"),
        ({"methods": 3}, "methods must be a name, got 3"),
        ({"pretrained": 1}, "pretrained must be true or false, got 1"),
        ({"severities": [True]}, "severities must be a whole number, got True"),
        ({"presets": 3}, "presets must map names to values, got 3"),
        ({"batchsize": 4}, "unknown option 'batchsize'; did you mean 'batch_size'"),
    ],
)
def test_a_value_of_another_type_is_refused_by_the_name_of_its_option(values, sentence):
    with pytest.raises(BadInputError, match=sentence):
        make_request({"methods": "source", "datasets": "pocket", **values})


def test_every_option_is_declared_with_its_help_and_no_two_share_a_flag():
    options = [*options_of(Request).values(), *options_of(Controls).values()]
    assert all(one.facts.help.endswith(".") for one in options)
    flags = [one.flag for one in options if one.flag]
    assert len(flags) == len(set(flags))
    assert {one.name for one in options if not one.flag} == {"preset"}
    for one in options:
        if not one.facts.needed:
            one.check(one.default)


@given(st.dictionaries(st.text(), st.integers() | st.text(), max_size=5))
def test_a_digest_ignores_the_order_of_keys(value):
    backwards = dict(reversed(value.items()))
    assert canonical(value) == canonical(backwards)
    assert digest(value) == digest(backwards)


@given(st.lists(st.text(max_size=5), min_size=2, max_size=4, unique=True))
def test_seeds_depend_on_every_part_and_its_place(parts):
    assert counter_seed(*parts) == counter_seed(*parts)
    assert counter_seed(*parts) != counter_seed(*reversed(parts))
    assert 0 <= counter_seed(*parts) < 2**63


def test_parsing_needs_neither_torch_nor_pydantic():
    code = "import sys, tta_bench.spec, tta_bench.cli; print([m for m in ('torch', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
