# SPDX-License-Identifier: Apache-2.0
"""ECALP: the state grows by an image a step, the graph's sparse matrix, and labels that spread."""

import torch
from tta_bench.adapters.ecalp import Ecalp, _symmetric


def test_the_graph_grows_by_an_image_a_step(recorded, texts, unit, watch):
    x = unit(15, 8, seed=25)
    state, _, scores = watch(Ecalp(), recorded(texts), x, 4)
    assert torch.allclose(state["features"], x)
    assert state["near"].shape == (15, 10)
    assert int(state["near"].max()) <= 15
    torch.testing.assert_close(scores.sum(-1), torch.ones(15, dtype=torch.float64))


def test_batches_are_one_image_after_another(recorded, texts, unit, watch):
    x, source = unit(14, 8, seed=26), recorded(texts)
    whole, alone = (watch(Ecalp(), source, x, size)[1]["scores"] for size in (14, 1))
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-12)


def test_similarities_stay_in_order_and_name_the_images(recorded, texts, unit, watch):
    x = unit(20, 8, seed=27)
    state, _, _ = watch(Ecalp(image_neighbours=3), recorded(texts), x, 20)
    assert (state["similarity"].diff(dim=-1) <= 0).all()
    channels = torch.nn.functional.normalize(texts.var(0), dim=0)
    rows = torch.nn.functional.normalize(channels * x, dim=-1)
    newest = rows @ x[-1]
    assert state["near"][-1, 0].item() == newest.argmax().item()


def test_edges_count_in_both_directions():
    near, weights = torch.tensor([[0, 1], [0, 2], [2, 1]]), torch.tensor([[1.0, 2], [4, 8], [16, 32]])
    directed = torch.zeros(3, 3)
    for row in range(3):
        for column, weight in zip(near[row], weights[row], strict=True):
            directed[row, column] += weight
    assert torch.equal(_symmetric(near, weights).to_dense(), directed + directed.T)
