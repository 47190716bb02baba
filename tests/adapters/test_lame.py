# SPDX-License-Identifier: Apache-2.0
"""LAME: affinities, the fixed point, and batches of one."""

import pytest
import torch
from tta_bench.adapters.lame import Lame, _distances

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.testing import tiny_images, tiny_source

KINDS = ("kNN", "rbf", "linear")


def test_it_keeps_its_promises():
    assert not [result for result in check_method(Lame()) if result.bad]


def unit(count, seed=0):
    made = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(made, dim=-1)


def test_distances_do_not_depend_on_the_blocks(monkeypatch):
    import tta_bench.adapters.lame as module

    features = unit(9)
    whole = _distances(features)
    monkeypatch.setattr(module, "AT_ONCE", 2 * features.numel())
    assert torch.equal(_distances(features), whole)
    assert torch.allclose(whole, torch.cdist(features, features), atol=1e-7)


def test_knn_affinities_are_ones_for_the_nearest_others():
    features = unit(9)
    found = Lame(affinity="kNN", k=3)._affinities(features)
    for row in range(9):
        distance = (features - features[row]).norm(dim=-1)
        distance[row] = torch.inf
        assert set(found[row].nonzero()[:, 0].tolist()) == set(distance.argsort()[:3].tolist())
    symmetric = Lame(affinity="kNN", k=3, symmetric=True)._affinities(features)
    assert torch.equal(symmetric, (found + found.T) / 2)


def test_rbf_affinities_have_the_mean_distance_to_the_kth_nearest_as_width():
    features = unit(9)
    distance = torch.cdist(features, features)
    width = distance.sort(-1).values[:, 2].mean()
    expected = (-(distance**2) / (2 * width**2)).exp()
    assert torch.allclose(Lame(k=3)._affinities(features), expected, atol=1e-6)


@pytest.mark.parametrize("affinity", KINDS)
def test_it_ends_at_a_fixed_point(affinity):
    generator = torch.Generator().manual_seed(1)
    unary = -torch.randn(9, 4, generator=generator, dtype=torch.float64).log_softmax(-1)
    method = Lame(affinity=affinity, k=3, steps=500, tolerance=0.0)
    weights = method._affinities(unit(9))
    found = method._agree(unary, weights)
    assert torch.allclose(found, (-unary + weights @ found).softmax(-1), atol=1e-6)
    assert torch.allclose(found.sum(-1), torch.ones(9, dtype=torch.float64))


@pytest.mark.parametrize("affinity", KINDS)
def test_identical_images_and_a_batch_of_one_stay_finite(run, affinity):
    source = tiny_source("batch")
    one = tiny_images(source, 1, 0)
    _, scores = run(Lame(affinity=affinity), source, [one, one.expand(6, -1, -1, -1)])
    for found in scores:
        assert torch.isfinite(found).all()
        assert torch.allclose(found.sum(-1), torch.ones(len(found)), atol=1e-5)
        assert (found.argmax(-1) == source.logits(one).argmax()).all()


def test_nothing_is_carried_from_batch_to_batch(source, batches, run):
    _, forward = run(Lame(), source, batches)
    _, backward = run(Lame(), source, batches[::-1])
    assert all(torch.equal(a, b) for a, b in zip(forward, backward[::-1], strict=True))


@pytest.mark.parametrize("values", [{"affinity": "cosine"}, {"k": 0}, {"steps": 0}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        Lame(**values)
