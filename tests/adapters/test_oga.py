# SPDX-License-Identifier: Apache-2.0
"""OGA: means over what is remembered, both covariances, and a batch that enters before it is predicted."""

import pytest
import torch
from tta_bench.adapters.oga import Oga


def remembered(state):
    memory = state["memory"]
    return [memory["keys"][k, : memory["count"][k]] for k in range(len(memory["count"]))]


@pytest.mark.parametrize("over_capacity", [False, True])
def test_a_mean_is_over_the_features_that_are_there(recorded, texts, unit, watch, over_capacity):
    method = Oga(memory=8, over_capacity=over_capacity)
    state, _, _ = watch(method, recorded(texts), unit(30, 8, seed=15), 10)
    for held, mean, text in zip(remembered(state), state["means"], texts, strict=True):
        divisor = 8 if over_capacity else len(held)
        torch.testing.assert_close(mean, held.sum(0) / divisor if len(held) >= 2 else text)


@pytest.mark.parametrize("kind", ["ridge", "pseudo-inverse"])
def test_the_precision_is_the_inverse_of_the_covariance_around_the_means(recorded, texts, unit, watch, kind):
    method = Oga(memory=16, covariance=kind)
    state, _, _ = watch(method, recorded(texts), unit(80, 8, seed=16), 80)
    apart = torch.cat([held - mean for held, mean in zip(remembered(state), state["means"], strict=True)])
    covariance = torch.cov(apart.T)
    if kind == "ridge":
        covariance = ((len(apart) - 1) * covariance + covariance.trace() * torch.eye(8)) / 8
    torch.testing.assert_close(state["precision"] @ covariance, torch.eye(8, dtype=torch.float64))


def test_the_scores_are_the_product_of_prior_and_likelihood(recorded, texts, unit, watch):
    method = Oga(tau=0.3, memory=4)
    x = unit(20, 8, seed=17)
    state, evidence, scores = watch(method, recorded(texts), x, 20)
    apart = x[:, None] - state["means"]
    density = -0.5 * torch.einsum("ncd,de,nce->nc", apart, state["precision"], apart)
    torch.testing.assert_close(evidence["log_density"], density)
    both = (100 * x @ texts.T).softmax(-1) * (0.3 * density).softmax(-1)
    torch.testing.assert_close(scores, both / both.sum(-1, keepdim=True))
    assert evidence["stored"].any()


def test_until_a_class_has_three_the_precision_stays(recorded, texts, watch):
    state, _, _ = watch(Oga(), recorded(texts), texts, 6)
    assert torch.equal(state["precision"], 8 * torch.eye(8, dtype=torch.float64))
