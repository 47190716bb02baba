# SPDX-License-Identifier: Apache-2.0
"""ROID: its loss and averaging by hand, and batches on which its weights have no spread."""

import pytest
import torch
from torch.nn.functional import cosine_similarity
from tta_bench.adapters._weighted import _scaled as scaled
from tta_bench.adapters._weighted import corrected
from tta_bench.adapters.roid import Roid

from tta_bench.augment import augment
from tta_bench.checks import check_method
from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.losses import entropy
from tta_bench.norms import batch
from tta_bench.testing import tiny_images, tiny_source, tiny_task
from tta_bench.testing.inputs import tiny_draws


def test_it_keeps_its_promises():
    assert not [result for result in check_method(Roid()) if result.bad]


def by_hand(source, method, batches):
    """Logits of the passes before each step, one sample at a time in the loss."""
    leaves = {name: p.clone().requires_grad_() for name, p in source.normalisation().items()}
    optimizer, q, scores = torch.optim.Adam(list(leaves.values()), method.lr), torch.full((5,), 0.2), []
    q = q.to(source.dtype)
    for index, images in enumerate(batches):
        z = source.logits(images, leaves, norm=batch())
        p = z.softmax(1)
        d = torch.stack([1 - cosine_similarity(q, row, dim=0) for row in p.detach()])
        c = -entropy(z.detach())
        d, c = ((v - v.min()) / (v.max() - v.min()) for v in (d, c))
        kept = [i for i in range(len(images)) if d[i] >= d.mean()]
        draws = tiny_draws(source, len(images), method, index, per_image=False)
        again = source.logits(augment(images[kept], draws), leaves, norm=batch())
        loss = 0
        for row, i in enumerate(kept):
            weight = torch.exp(d[i] * c[i] * 3)
            clipped = p[i].clamp(max=0.99)
            ratio = -(clipped * torch.log(clipped / (1 - clipped) + 1e-5)).sum()
            other = again[row].softmax(0)
            both = -0.5 * (p[i] * other.log()).sum() - 0.5 * (other * p[i].log()).sum()
            loss = loss + weight * (ratio + both) / len(images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf.mul_(0.99).add_(source.params[name], alpha=0.01)
        q = 0.9 * q + 0.1 * p.detach().mean(0)
        prior = p.detach().mean(0)
        s = max(1 / len(images), 1 / 5) / prior.max()
        scores.append(z.detach() * (prior + s) / (1 + 5 * s))
    return scores, leaves


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_update_is_that_of_a_plain_loop(norm, run):
    source, method = tiny_source(norm, dtype=torch.float64), Roid(lr=0.01)
    batches = [tiny_images(source, n, seed) for seed, n in enumerate((8, 8, 3))]
    states, scores = run(method, source, batches)
    expected, leaves = by_hand(source, method, batches)
    for found, wanted in zip(scores, expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-9)
    for name, leaf in leaves.items():
        assert torch.allclose(states[-1]["params"][name], leaf.detach(), atol=1e-9)


@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
def test_batches_without_spread_weigh_every_sample_alike(norm, run):
    source = tiny_source(norm)
    image = tiny_images(source, 1, 0)
    for images in (image, image.repeat(6, 1, 1, 1)):
        states, scores = run(Roid(lr=0.01), source, [images] * 3)
        assert all(torch.isfinite(found).all() for found in scores)
        assert all(torch.isfinite(p).all() for p in states[-1]["params"].values())
    logits = source.logits(image.repeat(6, 1, 1, 1))
    weights, kept = Roid()._weights(torch.full((5,), 0.2), logits)
    assert kept.all()
    assert torch.equal(weights, torch.ones(6))


def test_nothing_of_the_adapted_model_is_kept_without_a_share(source, batches, run):
    states, _ = run(Roid(lr=0.1, keep_weights=0.0), source, batches)
    assert all(torch.equal(p, source.params[name]) for name, p in states[-1]["params"].items())


def test_the_correction_favours_frequent_classes():
    logits = torch.tensor([[2.0, 1.9], [2.0, 1.0], [2.0, 1.0]])
    share = corrected(logits) / logits
    assert (share[:, 0] > share[:, 1]).all()
    assert torch.allclose(share, share[:1].expand(3, 2))
    uniform = torch.tensor([[1.0, 3.0], [3.0, 1.0]])
    ratio = corrected(uniform) / uniform
    assert torch.allclose(ratio, ratio[0, 0].expand(2, 2))


def test_parts_can_be_switched_off(source, batches, run):
    plain, scores = run(Roid(prior_correction=False), source, batches)
    assert torch.allclose(scores[0], source.logits(batches[0], norm=batch()), atol=1e-6)
    for values in ({"weighting": False}, {"consistency": False}):
        states, _ = run(Roid(**values), source, batches)
        assert any(not torch.equal(p, plain[-1]["params"][n]) for n, p in states[-1]["params"].items())


def test_values_out_of_range_and_models_without_norms_are_refused(without_norms):
    for values in ({"temperature": 0.0}, {"keep": 1.5}, {"keep_weights": -0.1}, {"lr": -1.0}):
        with pytest.raises(BadInputError):
            Roid(**values)
    with pytest.raises(IncompatibleError):
        Roid().init(without_norms, tiny_task(without_norms, Roid()))
    assert all(Roid(**values) for values in Roid.presets.values())


def test_values_are_scaled_to_0_and_1():
    assert scaled(torch.tensor([1.0, 3.0, 5.0])).tolist() == [0.0, 0.5, 1.0]
    assert scaled(torch.tensor([-2.0, -1.0])).tolist() == [0.0, 1.0]
    assert scaled(torch.full((3,), 7.0)).tolist() == [0.0, 0.0, 0.0]
