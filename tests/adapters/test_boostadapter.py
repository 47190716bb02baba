# SPDX-License-Identifier: Apache-2.0
"""BoostAdapter: an image's own views count for it alone."""

import torch
from tta_bench.adapters.boostadapter import BoostAdapter
from tta_bench.adapters.tda import Tda


def test_own_views_raise_their_class_and_are_forgotten(recorded, texts, watch):
    views = texts[[0, 1]].repeat_interleave(4, 0).view(2, 4, 8)
    method = BoostAdapter(views=4, selection=1.0, delta=3, alpha=1.0)
    state, evidence, scores = watch(method, recorded(texts), views, size=2)
    raised = scores - evidence["logits"]
    assert raised[0, 0].item() == 5  # the image in the cache, and its four views
    assert raised[1, 1].item() == 5
    assert state["positive"]["count"].tolist() == [1, 1, 0, 0, 0, 0]


def test_own_views_take_no_more_places_than_there_are(recorded, texts, watch):
    views = texts[:1].expand(8, -1).unsqueeze(0)
    method = BoostAdapter(views=8, selection=1.0, delta=1, capacity=3, alpha=1.0)
    _, evidence, scores = watch(method, recorded(texts), views)
    assert (scores - evidence["logits"])[0, 0].item() == 4


def test_without_views_and_negatives_it_is_tda(recorded, texts, unit, watch):
    rows, source = unit(20, 8, seed=2), recorded(texts)
    boosted = BoostAdapter(views=1, delta=0, negative_alpha=0.0)
    plain = Tda(negative_alpha=0.0)
    state, evidence, _ = watch(plain, source, rows, 5)
    other, _, _ = watch(boosted, source, rows, 5)
    assert all(torch.equal(state["positive"][name], other["positive"][name]) for name in state["positive"])
    assert evidence["filled"].any()


def test_the_negative_cache_keeps_the_newest(recorded, texts, unit, watch):
    source, rows = recorded(texts, scale=5.0), unit(40, 8, seed=3)
    band = (0.0, 10.0)
    method = BoostAdapter(views=1, negative_capacity=2, entropy_band=band)
    state, evidence, _ = watch(method, source, rows, 7)
    labels = evidence["logits"].argmax(-1)
    for label in range(6):
        newest = rows[labels == label][-2:]
        assert torch.allclose(state["negative"]["keys"][label, : len(newest)], newest)
