# SPDX-License-Identifier: Apache-2.0
"""CMF: the filter's variance and hidden model by hand, and its limits."""

import itertools

import pytest
import torch
from tta_bench.adapters.cmf import Cmf
from tta_bench.adapters.roid import Roid

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError


def test_it_keeps_its_promises():
    assert not [result for result in check_method(Cmf()) if result.bad]


@pytest.mark.parametrize("noise", [0.005, 40.0, 1e6])
def test_the_filter_is_that_of_plain_numbers(source, batches, run, noise):
    method = Cmf(lr=0.05, noise=noise)
    states, _ = run(method, source, batches)
    count = sum(p.numel() for p in source.normalisation().values())
    q, v = min(1.0, noise * count / 38400), 0.0
    hidden = {name: p.clone() for name, p in source.normalisation().items()}
    for before, after in itertools.pairwise(states):
        v = 0.99**2 * v + q
        beta = max((1 - q) / (v + 1 - q), 0.89)
        beta = 1.0 if beta >= 0.9999 else beta
        v *= beta
        assert float(after["variance"]) == pytest.approx(v, rel=1e-9)
        for name, start in source.normalisation().items():
            predicted = 0.99 * hidden[name] + 0.01 * start
            # after = 0.99 stepped + 0.01 h and h = beta predicted + (1 - beta) stepped, solved for h.
            stepped = (after["params"][name] - 0.01 * beta * predicted) / (0.99 + 0.01 * (1 - beta))
            hidden[name] = beta * predicted + (1 - beta) * stepped
            assert torch.allclose(after["hidden"][name], hidden[name], atol=1e-6)
        assert any(not torch.equal(before["params"][n], after["params"][n]) for n in hidden)


def test_in_a_small_model_it_is_roid_with_a_fixed_average(source, batches, run):
    found, scores = run(Cmf(lr=0.05), source, batches)
    expected, wanted = run(Roid(lr=0.05), source, batches)
    assert all(torch.allclose(p, source.params[name]) for name, p in found[-1]["hidden"].items())
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(scores, wanted, strict=True))
    assert all(
        torch.allclose(p, expected[-1]["params"][n], atol=1e-6) for n, p in found[-1]["params"].items()
    )


def test_a_reset_clears_the_variance(source, batches, run, same):
    first, _ = run(Cmf(noise=40.0), source, batches)
    again, _ = run(Cmf(noise=40.0), source, batches)
    assert float(first[-1]["variance"]) > 0
    assert float(first[0]["variance"]) == 0
    assert same(first, again)


@pytest.mark.parametrize("values", [{"alpha": 1.1}, {"gamma": -0.1}, {"noise": -1.0}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        Cmf(**values)
