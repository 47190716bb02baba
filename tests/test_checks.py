# SPDX-License-Identifier: Apache-2.0
"""Every check notices a method that breaks its promise, and only such a method."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tta_bench.adapters.clip import Clip
from tta_bench.adapters.norm import Norm
from tta_bench.adapters.source import Source
from tta_bench.adapters.tent import Tent

from tta_bench.checks import CHECKS, check_method, golden_record, parametrize_with_checks
from tta_bench.errors import BadInputError, IncompatibleError, UnknownNameError
from tta_bench.hyperparameters import methods_in_file
from tta_bench.registry import load_file
from tta_bench.steps import check_compatible
from tta_bench.testing import tiny_clip, tiny_source

SCORES = load_file(Path(__file__).with_name("broken_scores.py"))
BROKEN = SCORES.RIGHT
METHODS = [
    value
    for module in (BROKEN, SCORES)
    for value in vars(module).values()
    if isinstance(value, type) and hasattr(value, "breaks") and value.__module__ == module.__name__
    if value is not BROKEN.OnlineRule
]
NAMES = {check.name for check in CHECKS}
NEEDS_FILES = {"golden_scores_agree"}


def failed(results):
    return {result.name: result.reason for result in results if result.bad}


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_exactly_the_broken_promises_are_reported(cls):
    found = failed(check_method(cls()))
    assert found.keys() == cls.breaks
    assert not cls.breaks or any(cls.says in reason for reason in found.values()), found


def test_every_check_is_proven_on_a_broken_method():
    assert len(NAMES) == len(CHECKS) >= 18
    assert set().union(*(cls.breaks for cls in METHODS)) | NEEDS_FILES == NAMES


def test_every_check_has_a_sentence_of_its_own():
    sentences = [check.sentence for check in CHECKS]
    assert len(set(sentences)) == len(sentences)
    assert all(sentence.endswith(".") for sentence in sentences)


@pytest.mark.parametrize(
    "method", [Source(), Norm(), Norm(statistics="ema"), Tent(), Clip()], ids=lambda m: repr(m)[:24]
)
def test_built_in_methods_keep_their_promises(method):
    assert failed(check_method(method)) == {}


def test_a_check_leaves_the_process_as_it_was():
    before = torch.get_rng_state(), torch.backends.cudnn.benchmark, torch.is_grad_enabled()
    for cls in (SCORES.Seeding, SCORES.Tuning, SCORES.SwitchesGradients):
        check_method(cls())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.backends.cudnn.benchmark, torch.is_grad_enabled()) == before[1:]


def test_the_method_that_is_given_is_not_used_itself():
    method = BROKEN.Hoarder()
    check_method(method)
    assert not hasattr(method, "steps")


def test_an_expected_failure_is_xfail_and_a_wrong_one_is_xpass():
    results = check_method(
        BROKEN.Hoarder(),
        expected_failures={"nothing_is_stored": "it counts", "one_image_works": "it does not"},
    )
    by_name = {result.name: result for result in results}
    assert by_name["nothing_is_stored"].status == "xfail"
    assert by_name["nothing_is_stored"].reason == "it counts"
    assert by_name["one_image_works"].status == "xpass"
    assert [result.name for result in results if result.bad] == ["one_image_works"]


def test_a_name_in_expected_failures_must_be_a_check_that_applies():
    with pytest.raises(UnknownNameError, match="did you mean 'one_image_works'"):
        check_method(Source(), expected_failures={"one_image_work": "?"})
    with pytest.raises(UnknownNameError):
        parametrize_with_checks([Source()], expected_failures={"nonsense": "?"})
    with pytest.raises(BadInputError, match="does not apply to Source"):
        check_method(Source(), expected_failures={"draws_vary": "?"})


def test_an_error_in_the_method_is_reported_with_its_line():
    reasons = failed(check_method(SCORES.EvenOnly()))
    assert "ValueError: this method was handed a smaller batch" in reasons["smaller_last_batch_works"]
    assert "(broken_scores.py, line " in reasons["smaller_last_batch_works"]


@parametrize_with_checks([Source(), BROKEN.Online(strength=0.25), BROKEN.Single(), BROKEN.Hoarder()])
def test_parametrised(request, method, check):
    """Every case but the one broken promise passes or is skipped."""
    if "Hoarder-nothing_is_stored" in request.node.name:
        with pytest.raises(AssertionError, match=r"self\.steps changed"):
            check(method)
    else:
        check(method)


@parametrize_with_checks([BROKEN.Hoarder()], expected_failures={"nothing_is_stored": "it counts its steps"})
def test_parametrised_with_an_expected_failure(method, check):
    check(method)


GOLDEN = """
from dataclasses import dataclass
from tta_bench.adapters.source import Source

@dataclass(frozen=True)
class Plain(Source):
    '''Predict as the source model does.'''
"""


def plain(folder):
    file = folder / "plain.py"
    file.write_text(GOLDEN, encoding="utf-8")
    return methods_in_file(file)["plain"]()


def golden(method):
    return next(result for result in check_method(method) if result.name == "golden_scores_agree")


def test_golden_scores_are_compared_where_there_are_some(tmp_path):
    method = plain(tmp_path)
    assert golden(method).status == "skipped"
    record = golden_record(method)
    file = tmp_path / "golden.json"
    file.write_text(json.dumps({"Other": record}), encoding="utf-8")
    assert golden(method).status == "skipped"
    file.write_text(json.dumps({"Plain": record}), encoding="utf-8")
    assert golden(method).status == "passed"
    record["tiny-layer float64"][2][3][1] += 1e-6
    file.write_text(json.dumps({"Plain": record}), encoding="utf-8")
    assert golden(method).status == "failed"
    assert "scores differ from" in golden(method).reason


@pytest.mark.parametrize(
    ("need", "lacking", "advice"),
    [
        ("batchnorm", tiny_source("group"), "pocket-bn"),
        ("text", tiny_source("batch"), "pocket-clip"),
        ("reward", tiny_clip(), "has one"),
        ("patch_features", tiny_source("batch"), "vision transformer"),
    ],
)
def test_an_unfit_model_is_refused_with_one_that_fits(need, lacking, advice):
    card = BROKEN.replace(BROKEN.ONLINE, needs=frozenset({need}))
    method = type("Needy", (BROKEN.Online,), {"card": card})()
    with pytest.raises(
        IncompatibleError, match=f"Needy needs .* and '{lacking.name}' has none; choose .*{advice}"
    ):
        check_compatible(method, lacking)
    for fit in (tiny_source("batch"), tiny_source("layer"), tiny_clip()):
        if (need, fit.name) in {
            ("batchnorm", "tiny-batch"),
            ("text", "tiny-clip"),
            ("patch_features", "tiny-layer"),
        }:
            check_compatible(method, fit)


def test_the_page_about_the_checks_has_every_sentence():
    page = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{c.name}` | {c.sentence} | {c.applies or 'always'} |" for c in CHECKS]
