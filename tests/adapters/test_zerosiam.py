# SPDX-License-Identifier: Apache-2.0
"""ZeroSiam: the loss of its two branches, and what takes a step."""

import pytest
import torch
from tta_bench.adapters.tent import Tent
from tta_bench.adapters.zerosiam import ZeroSiam

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError


@pytest.mark.parametrize("method", [ZeroSiam(), ZeroSiam(reforward=True)], ids=["before", "after"])
def test_it_keeps_its_promises(method):
    assert not [result for result in check_method(method) if result.bad]


def test_the_first_step_is_that_of_entropy(grouped, batches, run):
    settings = {"lr": 0.05, "optimizer": "sgd", "momentum": 0.9}
    ours, _ = run(ZeroSiam(**settings), grouped, batches[:1])
    tent, _ = run(Tent(**settings), grouped, batches[:1])
    for name, expected in tent[1]["params"].items():
        torch.testing.assert_close(ours[1]["params"][name], expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(ours[1]["projector"], ours[0]["projector"])


def test_later_steps_follow_entropy_and_divergence(grouped, batches, run):
    method = ZeroSiam(lr=0.002, projector_lr=0.005, momentum=0.0)
    states, _ = run(method, grouped, batches[:2])
    state = states[1]
    leaves = {n: p.clone().requires_grad_() for n, p in state["params"].items()}
    projector = state["projector"].clone().requires_grad_()
    features = grouped.encode(batches[1], leaves)
    p = grouped.head(features).detach().softmax(1)
    q = grouped.head(features @ projector.T).softmax(1)
    each = -(q * q.log()) + p * (p / q).log() + q * (q / p).log()
    grads = torch.autograd.grad(each.sum(1).mean(), [*leaves.values(), projector])
    for (name, leaf), grad in zip(leaves.items(), grads, strict=False):
        expected = leaf.detach() - 0.002 * grad
        torch.testing.assert_close(states[2]["params"][name], expected, rtol=1e-4, atol=1e-6)
    expected = projector.detach() - 0.005 * grads[-1]
    torch.testing.assert_close(states[2]["projector"], expected, rtol=1e-4, atol=1e-6)


def test_reforward_predicts_with_the_norms_after_the_step(grouped, batches, run):
    method = ZeroSiam(lr=0.1, reforward=True)
    states, scores = run(method, grouped, batches[:1])
    torch.testing.assert_close(scores[0], grouped.logits(batches[0], states[1]["params"]))
    _, before = run(ZeroSiam(lr=0.1), grouped, batches[:1])
    torch.testing.assert_close(before[0], grouped.logits(batches[0]))


def test_a_negative_rate_of_the_projector_is_refused():
    with pytest.raises(BadInputError, match="projector_lr"):
        ZeroSiam(projector_lr=-1.0)
