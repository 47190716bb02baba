# SPDX-License-Identifier: Apache-2.0
"""Losses against independent formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tta_bench.losses import (
    chosen_views,
    contrastive,
    dispersion,
    diversity,
    entropy,
    marginal_entropy,
    mean_log_probabilities,
    most_confident,
    nearest_angle,
    opinion_entropy,
    pseudo_label_loss,
    robust_pseudo_label_loss,
    soft_cross_entropy,
    soft_likelihood_ratio,
    symmetric_cross_entropy,
)

logits = st.lists(st.floats(-60, 60), min_size=2, max_size=8)


@settings(deadline=None)
@given(logits)
def test_entropy_is_that_of_the_softmax(row):
    found = entropy(torch.tensor([row], dtype=torch.float64))
    expected = torch.distributions.Categorical(logits=torch.tensor(row, dtype=torch.float64)).entropy()
    assert found.shape == (1,)
    assert math.isclose(found.item(), expected.item(), rel_tol=1e-9, abs_tol=1e-12)


@settings(deadline=None)
@given(logits, st.floats(-30, 30))
def test_entropy_does_not_change_with_a_shift_of_the_logits(row, shift):
    one = torch.tensor(row, dtype=torch.float64)
    assert torch.allclose(entropy(one), entropy(one + shift), atol=1e-9)


def test_entropy_of_equal_logits_is_the_logarithm_of_their_number():
    assert torch.allclose(entropy(torch.full((2, 3, 7), 4.0)), torch.full((2, 3), math.log(7)))


def test_entropy_of_a_certain_prediction_is_zero_with_a_finite_gradient():
    one = torch.tensor([1000.0, 0.0, -1000.0], requires_grad=True)
    entropy(one).backward()
    assert entropy(one).item() == 0.0
    assert torch.isfinite(one.grad).all()


views = st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=1, max_size=5)


@settings(deadline=None)
@given(views)
def test_marginal_entropy_is_that_of_the_mean_prediction(rows):
    given_views = torch.tensor(rows, dtype=torch.float64)
    expected = torch.distributions.Categorical(probs=given_views.softmax(-1).mean(0)).entropy()
    assert math.isclose(marginal_entropy(given_views).item(), expected.item(), rel_tol=1e-9, abs_tol=1e-9)
    mean = mean_log_probabilities(given_views).exp()
    assert torch.allclose(mean, given_views.softmax(-1).mean(0), atol=1e-12)


def test_marginal_entropy_is_finite_where_a_probability_vanishes():
    given_views = torch.tensor([[[500.0, 0.0, 0.0], [500.0, 0.0, -500.0]]], requires_grad=True)
    value = marginal_entropy(given_views)
    value.sum().backward()
    assert value.item() == 0
    assert torch.isfinite(given_views.grad).all()


def test_soft_cross_entropy_is_the_library_s_with_probabilities():
    generator = torch.Generator().manual_seed(0)
    target, given_logits = torch.randn(2, 6, 4, generator=generator)
    expected = torch.nn.functional.cross_entropy(given_logits, target.softmax(-1), reduction="none")
    assert torch.allclose(soft_cross_entropy(target, given_logits), expected, atol=1e-6)


def test_pseudo_labels_count_where_they_are_chosen():
    given_logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    chosen = torch.arange(8) % 3 == 0
    labels = given_logits.argmax(-1)
    expected = torch.nn.functional.cross_entropy(given_logits[chosen], labels[chosen])
    assert torch.allclose(pseudo_label_loss(given_logits, chosen), expected)
    none = pseudo_label_loss(given_logits, torch.zeros(8, dtype=torch.bool))
    none.backward()
    assert none == 0
    assert not given_logits.grad.any()


def test_the_robust_loss_lies_between_cross_entropy_and_absolute_error():
    given_logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    top = given_logits.softmax(-1).amax(-1)
    assert torch.allclose(robust_pseudo_label_loss(given_logits, 1.0), 1 - top)
    assert torch.allclose(robust_pseudo_label_loss(given_logits, 1e-7), -top.log(), atol=1e-5)
    middle = robust_pseudo_label_loss(given_logits, 0.8)
    assert ((1 - top <= middle) & (middle <= -top.log())).all()


def test_diversity_is_least_for_an_even_mean_prediction():
    even = torch.eye(4, dtype=torch.float64) * 50
    assert math.isclose(diversity(even).item(), -math.log(4), abs_tol=1e-4)
    assert math.isclose(diversity(even[:1]).item(), 0.0, abs_tol=1e-4)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=2, max_size=8))
def test_symmetric_cross_entropy_takes_both_ways_alike(pairs):
    one, two = torch.tensor(pairs, dtype=torch.float64).T
    p, q = (torch.distributions.Categorical(logits=row) for row in (one, two))
    apart = torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)
    expected = (p.entropy() + q.entropy() + apart) / 2
    assert torch.isclose(symmetric_cross_entropy(one, two), expected, atol=1e-9)
    assert torch.equal(symmetric_cross_entropy(one, two), symmetric_cross_entropy(two, one))


def test_the_likelihood_ratio_is_the_expected_log_odds():
    row = torch.tensor([0.5, 1.5, -1.0], dtype=torch.float64)
    p = row.softmax(0).tolist()
    expected = -sum(q * math.log(q / (1 - q) + 1e-5) for q in p)
    assert soft_likelihood_ratio(row).item() == pytest.approx(expected, abs=1e-12)
    certain = torch.tensor([[50.0, 0.0]], dtype=torch.float64, requires_grad=True)
    value = soft_likelihood_ratio(certain).sum()
    assert value.item() == pytest.approx(-0.99 * math.log(99 + 1e-5), abs=1e-9)
    value.backward()
    assert certain.grad.abs().max() < 1e-12


@pytest.mark.parametrize("views", [2, 3])
def test_the_contrastive_loss_is_that_of_plain_sums(views):
    generator = torch.Generator().manual_seed(views)
    features = torch.randn(views, 4, 6, generator=generator, dtype=torch.float64)
    features = torch.nn.functional.normalize(features, dim=-1)
    rows, total = [(v, n) for v in range(views) for n in range(4)], 0.0
    for v, n in rows:
        own = {(w, m): (features[v, n] @ features[w, m]).item() / 0.2 for w, m in rows if (w, m) != (v, n)}
        bottom = math.log(sum(map(math.exp, own.values())))
        total -= sum(own[w, n] - bottom for w in range(views) if w != v) / (views - 1)
    assert contrastive(features, 0.2).item() == pytest.approx(total / len(rows), abs=1e-12)


def test_views_that_agree_lose_less():
    agreeing = torch.eye(4).expand(3, 4, 4)
    mixed = torch.stack([torch.eye(4).roll(shift, 0) for shift in range(3)])
    assert contrastive(agreeing, 0.1) < 1
    assert contrastive(mixed, 0.1) > 5


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(2, 12), st.sampled_from([None, 1000]))
def test_the_opinion_s_entropy_is_that_of_beliefs_and_doubt(seed, classes, about):
    z = 4 * torch.randn(3, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    total = z.exp().sum(1, keepdim=True) + (about or classes)
    q = torch.cat([z.exp(), torch.full_like(total, about or classes)], 1) / total + 1e-7
    found = opinion_entropy(z, about or classes)
    torch.testing.assert_close(found, -(q * q.log()).sum(1))


def test_the_opinion_s_entropy_gives_no_gradient_along_the_logits():
    z = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(opinion_entropy(z, 4).sum(), z)
    assert float((grad * z.detach()).sum(1).abs().max()) < 1e-12
    assert grad.abs().amax(1).min() > 1e-4


@pytest.mark.parametrize("scale", [0.0, 1e3, 1e15])
def test_the_opinion_s_entropy_is_finite_for_any_scale(scale):
    z = (scale * torch.eye(4)).requires_grad_()
    each = opinion_entropy(z, 4)
    (grad,) = torch.autograd.grad(each.sum(), z)
    assert each.isfinite().all()
    assert grad.isfinite().all()


def test_the_most_confident_views_come_by_ascending_entropy_and_ties_by_position():
    logits = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [0.0, 3.0], [9.0, 0.0], [0.0, 0.0], [0.0, 1.0]]])
    assert most_confident(logits, 0.5).tolist() == [[3, 1, 2]]
    assert most_confident(logits, 1.0).tolist() == [[3, 1, 2, 0, 5, 4]]
    assert most_confident(logits, 0.1).tolist() == [[3]]  # int(0.6) is 0, but one view is kept
    assert most_confident(torch.zeros(2, 64, 3), 0.1).shape == (2, 6)
    values = torch.arange(12.0).view(1, 6, 2)
    assert chosen_views(values, torch.tensor([[3, 1]])).tolist() == [[[6.0, 7.0], [2.0, 3.0]]]


def test_dispersion_is_the_mean_distance_from_the_mean():
    assert dispersion(torch.tensor([[0.0, 3.0], [0.0, -3.0], [4.0, 0.0], [-4.0, 0.0]])) == 3.5
    assert dispersion(torch.ones(3, 2)) == 0


def test_the_nearest_angle_leaves_the_class_itself_out():
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    assert math.isclose(nearest_angle(features), math.pi / 2, rel_tol=1e-12)
    twins = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert math.isclose(nearest_angle(twins), math.acos(0.99999), rel_tol=1e-9)
