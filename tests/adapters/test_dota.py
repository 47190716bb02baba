# SPDX-License-Identifier: Apache-2.0
"""DOTA: estimates over one image against explicit sums, and a weight that grows up to its limit."""

import pytest
import torch
from tta_bench.adapters.dota import Dota


def test_one_image_moves_every_class_by_its_probability(recorded, texts, unit, watch):
    x, method = unit(1, 8, seed=11), Dota(sigma=0.01, start="text")
    state, evidence, _ = watch(method, recorded(texts, scale=3.0), x)
    p = (3 * x[0] @ texts.T).softmax(-1)
    for k in range(6):
        apart = x[0] - texts[k]
        mean = (texts[k] + p[k] * x[0]) / (1 + p[k])
        covariance = (0.01 * torch.eye(8) + p[k] * torch.outer(apart, apart)) / (1 + p[k])
        torch.testing.assert_close(state["means"][k], mean)
        torch.testing.assert_close(state["covariances"][k], covariance)
    pooled = (1 - 1e-4) * state["covariances"].mean(0) + 1e-4 * torch.eye(8)
    torch.testing.assert_close(state["precision"] @ pooled, torch.eye(8, dtype=torch.float64))
    before = 100 * (x @ texts.T - 0.5)  # precision 1 / sigma, unit means
    torch.testing.assert_close(evidence["discriminant"], before)


def test_the_weight_grows_up_to_eta(recorded, texts, unit, watch):
    method = Dota(rho=0.05, eta=0.3)
    _, evidence, scores = watch(method, recorded(texts), unit(60, 8, seed=12), 7)
    weight = method.weight(evidence).squeeze(-1)
    counts = 1 + torch.arange(60, dtype=torch.float64) / 6
    torch.testing.assert_close(weight, (0.05 * counts).clamp(max=0.3))
    torch.testing.assert_close(scores, evidence["logits"] + weight[:, None] * evidence["discriminant"])


@pytest.mark.parametrize("views", [1, 8])
def test_the_rows_of_an_image_count_together_as_many_as_they_are(recorded, texts, unit, watch, views):
    kept = max(1, views // 2)
    state, _, _ = watch(Dota(views=views, selection=0.5), recorded(texts), unit(5, views, 8, seed=13), 5)
    assert state["counts"].sum().item() == pytest.approx(6 + 5 * kept)
