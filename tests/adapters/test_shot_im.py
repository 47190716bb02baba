# SPDX-License-Identifier: Apache-2.0
"""SHOT-IM and online SHOT: the frozen classifier, the two terms, and steps."""

import pytest
import torch
from tta_bench.adapters.shot_im import ShotIm

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.losses import diversity, entropy
from tta_bench.testing import tiny_clip, tiny_images


def test_it_keeps_its_promises():
    assert not [result for result in check_method(ShotIm()) if result.bad]


def test_everything_but_the_classifier_moves(source, batches, run):
    states, _ = run(ShotIm(lr=0.01), source, batches)
    names = set(states[0]["params"])
    assert set(source.params) - names == {"fc.weight", "fc.bias"}
    assert all(not torch.equal(states[0]["params"][n], states[-1]["params"][n]) for n in names)


def test_a_clip_like_model_moves_as_a_whole():
    source = tiny_clip()
    assert set(ShotIm().adapted_tensors(source)) == set(source.params)


def test_the_loss_falls(source, run):
    images = tiny_images(source, 16, 0)

    def loss(params):
        logits = source.logits(images, params)
        return (entropy(logits).mean() + diversity(logits)).item()

    states, _ = run(ShotIm(lr=1e-3), source, [images] * 6)
    losses = [loss(state["params"]) for state in states]
    assert losses[-1] < losses[0] - 1e-3


def test_the_logits_are_those_before_the_last_of_several_steps(source, run):
    images = tiny_images(source, 8, 0)
    _, one_by_one = run(ShotIm(lr=0.01), source, [images] * 3)
    _, at_once = run(ShotIm(lr=0.01, steps=3), source, [images])
    assert torch.allclose(at_once[0], one_by_one[2], atol=1e-6)


def test_pseudo_labels_count_only_where_some_are_confident(source, batches, run, same):
    plain, never, often = (
        run(ShotIm(lr=0.01, theta=theta, beta=beta), source, batches)[0][-1]
        for theta, beta in ((0.0, 0.9), (0.3, 2.0), (0.3, 0.3))
    )
    assert all(torch.allclose(never["params"][n], p, atol=1e-6) for n, p in plain["params"].items())
    assert any(not torch.allclose(often["params"][n], p, atol=1e-4) for n, p in plain["params"].items())


@pytest.mark.parametrize("values", [{"steps": 0}, {"theta": -0.1}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        ShotIm(**values)
