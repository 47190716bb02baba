# SPDX-License-Identifier: Apache-2.0
"""The fakes: reproducible, the same in every precision, varied enough to be a test, and shaped as the contract says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from tta_bench.adapters.memo import Memo
from tta_bench.adapters.ttaug import TTAug

from tta_bench.errors import BadInputError
from tta_bench.method import Adapted, Card, Method, ViewPolicy
from tta_bench.testing import sources_for, tiny_clip, tiny_images, tiny_inputs, tiny_source, tiny_task

MODELS = {
    "batch": lambda **kw: tiny_source("batch", **kw),
    "group": lambda **kw: tiny_source("group", **kw),
    "layer": lambda **kw: tiny_source("layer", **kw),
    "clip": lambda **kw: tiny_clip(**kw),
}


@dataclass(frozen=True)
class Asking(Method):
    """Ask for things."""

    card = Card(paper="none")

    def draw(self, source, n, generator):
        return torch.rand(n, 2, generator=generator)

    def adapt(self, source, state, inputs):
        return Adapted(state)


def asking(**card):
    return type("Asks", (Asking,), {"card": replace(Asking.card, **card)})()


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_is_reproducible_and_the_same_in_float64(make):
    one, two, exact, other = make(), make(), make(dtype=torch.float64), make(seed=1)
    images = tiny_images(exact, 8, 0)
    expected = exact.logits(images)
    assert one.weights_sha256 == two.weights_sha256 != other.weights_sha256
    assert torch.equal(one.logits(images.float()), two.logits(images.float()))
    assert float((one.logits(images.float()) - expected).abs().max()) < 1e-5 * max(
        1, float(expected.abs().max())
    )
    assert expected.shape == (8, 5)
    assert float((expected - expected.mean(0)).std()) > 0.2
    assert len(expected.argmax(1).unique()) > 1


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_models_may_be_changed_without_changing_the_next_one(make):
    sha = make().weights_sha256
    with torch.no_grad():
        for tensor in make().params.values():
            tensor.zero_()
    assert make().weights_sha256 == sha


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_takes_other_classes_and_sizes(make):
    source = make(classes=12, size=(1, 8, 12))
    assert source.logits(torch.rand(2, 1, 8, 12)).shape == (2, 12)
    assert len(set(source.class_names)) == source.num_classes == 12
    with pytest.raises(BadInputError, match="multiples of 4"):
        make(size=(3, 10, 16))


@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
def test_a_classifier_has_the_normalisation_that_was_asked_for(norm):
    source = tiny_source(norm)
    kinds = {layer.kind for layer in source.layers} & {"batch", "group", "layer"}
    assert kinds == {norm}
    last, all_but_last = (
        source.normalisation(stages=slice(-1, None)),
        source.normalisation(stages=slice(0, -1)),
    )
    assert last
    assert all_but_last
    assert not last.keys() & all_but_last.keys()


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(BadInputError, match="batch, group, layer, got 'rms'"):
        tiny_source("rms")


def test_the_clip_model_s_logits_are_scaled_cosines_with_its_prototypes():
    source = tiny_clip(dtype=torch.float64)
    features = source.encode(tiny_images(source, 4, 0))
    prototypes = source.text.prototypes()
    unit = features / features.norm(dim=1, keepdim=True)
    assert torch.allclose(source.head(features), 100 * unit @ prototypes.T, rtol=1e-12)
    assert torch.allclose(prototypes.norm(dim=1), torch.ones(5, dtype=torch.float64), rtol=1e-12)
    assert torch.pdist(prototypes).min() > 1e-3


def test_nothing_touches_the_global_generator():
    before = torch.get_rng_state()
    for make in MODELS.values():
        source = make(seed=77)
        tiny_inputs(source, 3, method=asking(views=ViewPolicy(4), needs=frozenset({"features"})))
    assert torch.equal(torch.get_rng_state(), before)


def test_inputs_hold_what_the_card_asks_for_and_no_more():
    source = tiny_clip()
    bare = tiny_inputs(source, 3, method=asking())
    assert [n for n, value in bare._asdict().items() if value is not None] == ["images", "draws"]
    needs = frozenset({"features", "source_replay", "source_labels"})
    full = tiny_inputs(source, 3, method=asking(views=ViewPolicy(4), needs=needs))
    assert full.views.shape == (3, 4, 3, 16, 16)
    assert torch.equal(full.views[:, 0], full.images)
    assert full.features.shape == (3, source.dim)
    assert full.view_features.shape == (3, 4, source.dim)
    assert torch.allclose(full.view_features[:, 0], full.features, atol=1e-5)
    assert len(full.source_images) == len(full.source_labels)
    for tensor in (full.images, full.views, full.source_images):
        assert 0 <= float(tensor.min()) < float(tensor.max()) <= 1
    unlabelled = tiny_inputs(source, 3, method=asking(needs=frozenset({"source_replay"})))
    assert unlabelled.source_labels is None


def test_views_are_as_many_as_the_method_asks_for():
    source = tiny_source()
    for method in (Memo(views=3), TTAug(views=5)):
        assert tiny_inputs(source, 2, method=method).views.shape == (2, method.views, 3, 16, 16)


def test_draws_are_made_for_each_image_or_once_for_the_step():
    source = tiny_source()
    single, whole = asking(reset="image"), asking(reset="shift")
    three, two = (tiny_inputs(source, n, method=single).draws for n in (3, 2))
    assert torch.equal(three[:2], two)
    assert not torch.equal(three[0], three[1])
    assert tiny_inputs(source, 3, method=whole).draws.shape == (3, 2)
    others = [tiny_inputs(source, 3, method=whole, seed=seed).draws for seed in (0, 1)]
    assert not torch.equal(*others)


def test_a_task_holds_what_the_card_asks_for_and_no_more():
    source = tiny_source()
    bare = tiny_task(source, asking())
    assert (bare.num_classes, bare.stream_length, bare.source) == (5, None, None)
    full = tiny_task(source, asking(needs=frozenset({"stream_length", "source_images"})))
    assert full.stream_length > 0
    images, labels = full.source.batch(1, 7)
    assert images.shape == (7, 3, 16, 16)
    assert set(labels.tolist()) <= set(range(5))
    wrapped, _ = full.source.batch(3, 8)
    first, _ = full.source.batch(0, 8)
    assert len(full.source) == 24
    assert torch.equal(wrapped, first)


@pytest.mark.parametrize(
    ("needs", "names"),
    [
        (set(), ["tiny-batch", "tiny-group", "tiny-layer"]),
        ({"batchnorm"}, ["tiny-batch"]),
        ({"patch_features"}, ["tiny-layer"]),
        ({"text"}, ["tiny-clip"]),
        ({"features"}, ["tiny-clip"]),
        ({"reward", "text"}, ["tiny-clip"]),
    ],
)
def test_models_are_chosen_by_what_the_card_needs(needs, names):
    found = sources_for(asking(needs=frozenset(needs)))
    assert [source.name for source in found] == names
    assert all((source.reward is not None) == ("reward" in needs) for source in found)
