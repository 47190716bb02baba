# SPDX-License-Identifier: Apache-2.0
"""COME: its loss in three hosts, as an option and as methods of their own."""

from dataclasses import fields

import pytest
import torch
from tta_bench.adapters.come_eata import ComeEata
from tta_bench.adapters.come_sar import ComeSar
from tta_bench.adapters.come_tent import ComeTent
from tta_bench.adapters.eata import Eata
from tta_bench.adapters.sar import Sar
from tta_bench.adapters.tent import Tent

from tta_bench import registry
from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.hyperparameters import create_method
from tta_bench.losses import opinion_entropy
from tta_bench.norms import batch

PAIRS = {"come-tent": (ComeTent, Tent), "come-eata": (ComeEata, Eata), "come-sar": (ComeSar, Sar)}


@pytest.mark.parametrize("name", PAIRS)
def test_it_keeps_its_promises(name):
    assert not [result for result in check_method(PAIRS[name][0]()) if result.bad]


@pytest.mark.parametrize("name", PAIRS)
def test_the_option_of_the_host_is_the_same_method(name, source, batches, run, same):
    made, host = PAIRS[name]
    method = made(margin=2.0) if name != "come-tent" else made()
    values = {field.name: getattr(method, field.name) for field in fields(method)}
    states, scores = run(method, source, batches)
    other, expected = run(host(**values), source, batches)
    assert same(states, other)
    assert all(torch.equal(a, b) for a, b in zip(scores, expected, strict=True))
    plain, _ = run(host(**(values | {"loss": "entropy"})), source, batches)
    assert not same(states[-1], plain[-1])


def test_text_chooses_the_loss():
    assert create_method("tent", {"loss": "come"}).loss == "come"
    assert registry.load("methods", "come-sar") is ComeSar


def test_the_step_of_tent_is_that_of_the_loss(source, batches, run):
    states, _ = run(ComeTent(lr=0.1, momentum=0.0, opinion_classes=9), source, batches[:1])
    leaves = {name: p.clone().requires_grad_() for name, p in source.normalisation().items()}
    loss = opinion_entropy(source.logits(batches[0], leaves, norm=batch()), 9).mean()
    for name, grad in zip(leaves, torch.autograd.grad(loss, [*leaves.values()]), strict=True):
        torch.testing.assert_close(states[1]["params"][name], leaves[name].detach() - 0.1 * grad)


@pytest.mark.parametrize("values", [{"loss": "cross"}, {"opinion_classes": -1}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        ComeTent(**values)
