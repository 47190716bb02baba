# SPDX-License-Identifier: Apache-2.0
"""ETA: which samples count, what they weigh, and what happens when none does."""

import math

import pytest
import torch
from tta_bench.adapters.eta import Eta

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.losses import entropy
from tta_bench.norms import batch
from tta_bench.testing import tiny_images, tiny_task


def test_it_keeps_its_promises():
    assert not [result for result in check_method(Eta()) if result.bad]


def test_the_update_is_that_of_a_plain_loop(source, batches, run):
    method = Eta(optimizer="sgd", lr=0.1, momentum=0.9, margin=0.7, redundancy=0.98)
    _, scores = run(method, source, batches)
    leaves = {name: p.clone().requires_grad_() for name, p in source.normalisation().items()}
    optimizer, mean, limit = (
        torch.optim.SGD(list(leaves.values()), lr=0.1, momentum=0.9),
        None,
        0.7 * math.log(5),
    )
    taken = []
    for images, found in zip(batches, scores, strict=True):
        logits = source.logits(images, leaves, norm=batch())
        assert torch.allclose(found, logits, atol=1e-5)
        h, p = entropy(logits), logits.softmax(-1).detach()
        rows = [
            i for i in range(len(images))
            if h[i] < limit and (mean is None or abs(torch.cosine_similarity(mean, p[i], dim=0)) < 0.98)
        ]  # fmt: skip
        taken.append(len(rows))
        optimizer.zero_grad()
        (sum(math.exp(limit - h[i].item()) * h[i] for i in rows) / len(rows)).backward()
        optimizer.step()
        mean = p[rows].mean(0) if mean is None else 0.9 * mean + 0.1 * p[rows].mean(0)
    assert any(0 < count < 8 for count in taken), "the thresholds let some samples through and not others"


def test_nothing_changes_where_no_sample_is_reliable(source, batches, run, same):
    states, scores = run(Eta(margin=0.0), source, batches)
    assert same(states[0], states[-1])
    assert torch.equal(scores[1], source.logits(batches[1], norm=batch()))


def test_images_like_the_mean_prediction_are_redundant(source, run, same):
    images = tiny_images(source, 1, 0).expand(8, -1, -1, -1)
    states, _ = run(Eta(margin=1.0, redundancy=0.9), source, [images, images])
    assert not same(states[0], states[1])
    assert same(states[1], states[2])


@pytest.mark.parametrize("count", [1, 3])
def test_small_batches_are_adapted_to(source, run, count):
    states, scores = run(Eta(margin=1.0), source, [tiny_images(source, count, 1)])
    assert scores[0].shape == (count, 5)
    assert all(torch.isfinite(p).all() for p in states[1]["params"].values())


def test_logits_that_are_no_numbers_change_nothing(source, run, same):
    states, scores = run(Eta(), source, [torch.full((2, 3, 16, 16), torch.nan)])
    assert scores[0].isnan().all()
    assert same(states[0], states[1])


def test_a_model_without_norm_layers_is_refused(without_norms):
    with pytest.raises(IncompatibleError, match="no affine norm layer"):
        Eta().init(without_norms, tiny_task(without_norms, Eta()))


@pytest.mark.parametrize(
    "values", [{"margin": -0.1}, {"redundancy": -1.0}, {"lr": -1.0}, {"margin": float("nan")}]
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        Eta(**values)
