# SPDX-License-Identifier: Apache-2.0
"""RPL: robust self-training."""

import pytest
import torch
from tta_bench.adapters.rpl import Rpl

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.norms import batch
from tta_bench.testing import tiny_images


def test_it_keeps_its_promises():
    assert not [result for result in check_method(Rpl()) if result.bad]


def test_the_update_is_that_of_a_plain_loop(source, batches, run):
    states, scores = run(Rpl(lr=0.01, q=0.7), source, batches)
    leaves = {name: p.clone().requires_grad_() for name, p in source.normalisation().items()}
    optimizer = torch.optim.Adam(list(leaves.values()), lr=0.01)
    for images, found in zip(batches, scores, strict=True):
        logits = source.logits(images, leaves, norm=batch())
        assert torch.allclose(found, logits, atol=1e-5)
        p = logits.softmax(1).gather(1, logits.argmax(1, keepdim=True))
        optimizer.zero_grad()
        ((1 - p**0.7) / 0.7).mean().backward()
        optimizer.step()
    for name, leaf in leaves.items():
        assert torch.allclose(states[-1]["params"][name], leaf, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_identical_images_give_finite_tensors(source, run, count):
    states, _ = run(Rpl(), source, [tiny_images(source, 1, 0).expand(count, -1, -1, -1)])
    assert all(torch.isfinite(p).all() for p in states[1]["params"].values())


@pytest.mark.parametrize("q", [0.0, 1.1, -1.0])
def test_an_exponent_out_of_range_is_refused(q):
    with pytest.raises(BadInputError, match="q must"):
        Rpl(q=q)
