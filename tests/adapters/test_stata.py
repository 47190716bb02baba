# SPDX-License-Identifier: Apache-2.0
"""StatA: assignments, anchors, neighbours, and batches of one."""

import torch
from tta_bench.adapters._gaussian import diagonal_log_density, scatter, spread
from tta_bench.adapters.stata import StatA


def test_a_far_anchor_keeps_the_texts(recorded, texts, unit, watch):
    x, source = unit(20, 8, seed=18), recorded(texts)
    near, far = (watch(StatA(alpha=alpha, affinity=0.0), source, x, 20)[2] for alpha in (0.01, 1e9))
    zero_shot = (100 * x @ texts.T).softmax(-1)
    assert (far - zero_shot).abs().max() < (near - zero_shot).abs().max()
    assert (far.argmax(-1) == zero_shot.argmax(-1)).float().mean() > 0.9


def test_neighbours_agree(recorded, texts, unit, watch):
    pair = (texts[0] + texts[1] + 0.02 * unit(2, 8, seed=19)).view(2, 8)
    x = torch.nn.functional.normalize(torch.cat([texts[:1].expand(6, -1), pair]), dim=-1)
    assigned = watch(StatA(affinity=5.0), recorded(texts), x, 8)[2]
    torch.testing.assert_close(assigned.sum(-1), torch.ones(8, dtype=torch.float64))
    assert torch.equal(assigned.argmax(-1), torch.zeros(8, dtype=torch.int64))


def test_one_image_and_equal_images_stay_finite(recorded, texts, unit, watch):
    one, source = unit(1, 8, seed=20), recorded(texts.float())
    for x in (one, one.expand(5, -1)):
        assert torch.isfinite(watch(StatA(), source, x.float(), len(x))[2]).all()


def test_estimates_are_explicit_sums(unit):
    x, means, weights = unit(9, 4, seed=21), unit(3, 4, seed=22), unit(9, 3, seed=23).abs()
    apart = x[:, None] - means  # (N, C, D)
    full = torch.einsum("nc,ncd,nce->cde", weights, apart, apart)
    torch.testing.assert_close(scatter(x, weights, means), full)
    torch.testing.assert_close(spread(x, weights, means), full.diagonal(dim1=1, dim2=2))
    variances = 0.1 + unit(3, 4, seed=24).square()
    expected = torch.distributions.Normal(means, variances.sqrt()).log_prob(x[:, None]).sum(-1)
    constant = 0.5 * (2 * torch.pi * variances).log().sum(-1)
    torch.testing.assert_close(diagonal_log_density(x, means, variances), expected + constant)
