# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself before and beside its numbers."""

import warnings
from dataclasses import dataclass, replace

import pytest

from tta_bench.engine import objects
from tta_bench.engine.planning import describe_defaults, plan
from tta_bench.errors import Caution
from tta_bench.registry import load
from tta_bench.reports.cautions import caution_lines
from tta_bench.spec import make_request
from tta_bench.testing import tiny_source

from . import fakes
from .fakes import FOG, cell, run


@pytest.mark.parametrize(
    ("values", "said", "unsaid"),
    [
        (
            {"limit": 20, "batch_size": 5000},
            ["; first-20 images per shift (--limit)", "20 images at a time"],
            ["5000"],
        ),
        ({"subset": "full"}, ["all images of each shift"], ["--limit", "full images"]),
        ({"datasets": ["pocket-c:fog:1"]}, ["1 cell;"], ["1 cells"]),
        ({"datasets": ["pocket-c:fog:1", "pocket-c:snow:1"]}, ["2 cells;"], []),
        ({"limit": 20, "batch_size": 1}, ["1 image at a time"], ["1 images"]),
        ({"datasets": ["pacs:sketch"], "models": ["pocket-clip"]}, ["1 cell; sketch;"], ["severity"]),
    ],
)
def test_the_plan_says_what_is_so(values, said, unsaid):
    request = make_request({"methods": ["source"], "datasets": ["pocket-c:fog:1"], **values})
    sentence = describe_defaults(plan(request), request)
    assert all(one in f"{sentence};" for one in said), sentence
    assert not any(one in sentence for one in unsaid), sentence


def test_a_baseline_sees_an_image_under_any_reset():
    idle = type("Idle", (fakes.Same,), {"card": replace(fakes.Same.card)})
    store, ended, _ = run([cell(idle(), reset="shift"), cell(fakes.Counter())])
    assert [store.manifests[one.cell].notes.sees for one in ended] == ["image", "batch"]


@pytest.mark.parametrize(("size", "expected"), [(1, 1), (2, 0)])
def test_batchnorm_one_image_at_a_time_is_a_caution_that_names_the_way_out(size, expected):
    norm = load("methods", "norm")()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        store, _, _ = run([cell(norm, [FOG], batch_size=size, name="norm", seed=seed) for seed in (0, 1)])
    told = [str(one.message) for one in heard if issubclass(one.category, Caution)]
    assert len(told) == expected
    assert all("preset=schneider-2020-one-image" in one for one in told)
    assert [one.notes.cautions for one in store.manifests.values()] == [tuple(told)] * 2


@dataclass(frozen=True)
class Cautious(fakes.Same):
    """Warn at every step."""

    def adapt(self, source, state, inputs):
        warnings.warn("mind the step", Caution, stacklevel=2)
        warnings.warn("a library says", UserWarning, stacklevel=2)
        return super().adapt(source, state, inputs)


def test_cautions_are_in_the_manifest_apart_from_the_warnings_of_libraries():
    with pytest.warns(Caution, match="mind the step"):
        store, _, _ = run([cell(Cautious())])
    (manifest,) = store.manifests.values()
    assert manifest.notes.cautions == ("mind the step",)
    assert manifest.warnings == ("UserWarning: a library says",)


def test_cautions_of_the_source_model_are_in_every_manifest(monkeypatch):
    def load_model(*args, **kwargs):
        source = tiny_source(classes=5, size=(3, 16, 16))
        source.cautions = ("the scores depend on the batch",)
        return source

    monkeypatch.setattr(objects, "load_model", load_model)
    store, _, _ = run([cell(fakes.Same()), cell(fakes.Counter())])
    assert [one.notes.cautions for one in store.manifests.values()] == [
        ("the scores depend on the batch",)
    ] * 2
    assert caution_lines(store.manifests.values()) == ["Caution (2 cells): the scores depend on the batch"]


def test_a_reused_cell_says_which_versions_it_was_computed_with():
    store, ended, _ = run([cell(fakes.Same())])
    kept = store.manifests[ended[0].cell]
    store.manifests[ended[0].cell] = replace(kept, versions={**kept.versions, "torch": "1.0"})
    _, again, reporter = run([cell(fakes.Same())], store)
    assert again[0].status == "reused"
    assert reporter.ended[0][2].startswith("with torch 1.0 (now 2.")
    store.manifests[ended[0].cell] = kept
    assert run([cell(fakes.Same())], store)[2].ended[0][2] == ""
