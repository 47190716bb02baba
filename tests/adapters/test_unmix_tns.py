# SPDX-License-Identifier: Apache-2.0
"""UnMix-TNS: how its components begin and move, alone and under TENT."""

import pytest
import torch
from tta_bench.adapters.unmix_tns import UnmixTns
from tta_bench.adapters.unmix_tns_tent import UnmixTnsTent

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.method import Inputs
from tta_bench.steps import check_compatible
from tta_bench.testing import tiny_task


@pytest.mark.parametrize("method", [UnmixTns(), UnmixTns(components=1), UnmixTnsTent(steps=2)], ids=str)
def test_it_keeps_its_promises(method):
    assert not [result for result in check_method(method) if result.bad]


def test_the_first_components_have_the_source_moments(source):
    method = UnmixTns(components=4000, noise=0.5)
    state = method.init(source, tiny_task(source, method))
    begun = method.begun(source, state, method.draw(source, 1, torch.Generator().manual_seed(0)))
    for name in ("norm", "blocks.1.norm2"):
        means, variances = (begun["stats"][f"{name}.running_{leaf}"] for leaf in ("mean", "var"))
        mean, var = (source.buffers[f"{name}.running_{leaf}"] for leaf in ("mean", "var"))
        torch.testing.assert_close(means.mean(0), mean, rtol=0, atol=0.1)
        torch.testing.assert_close(variances.mean(0) + means.var(0), var, rtol=0.1, atol=0.05)


def test_the_noise_of_the_first_step_alone_counts(source, batches, run):
    method = UnmixTns(components=3)
    states, _ = run(method, source, batches)
    later = states[1]
    inputs = [
        Inputs(batches[1], draws=method.draw(source, 8, torch.Generator().manual_seed(s))) for s in (1, 2)
    ]
    one, two = (method.adapt(source, later, each) for each in inputs)
    assert torch.equal(one.logits, two.logits)
    first = [method.adapt(source, states[0], each).logits for each in inputs]
    assert not torch.equal(*first)


def test_smaller_configured_batches_move_the_components_less(source, batches):
    ends = []
    for size in (64, 16):
        method = UnmixTns(components=1)
        state = method.init(source, tiny_task(source, method, batch_size=size))
        ends.append(method.adapt(source, state, Inputs(batches[0])).state["stats"]["norm.running_mean"])
    start = source.buffers["norm.running_mean"]
    ratio = (ends[1] - start) / (ends[0] - start)
    torch.testing.assert_close(ratio, torch.full_like(ratio, (1 - 0.9**0.25) / 0.1), rtol=1e-3, atol=0)


def test_without_a_learning_rate_tent_is_the_normalisation_alone(source, batches, run):
    _, alone = run(UnmixTns(), source, batches)
    _, hosted = run(UnmixTnsTent(lr=0.0), source, batches)
    for one, two in zip(alone, hosted, strict=True):
        torch.testing.assert_close(one, two)
    _, moved = run(UnmixTnsTent(lr=0.01), source, batches)
    assert not torch.allclose(alone[-1], moved[-1])


def test_a_model_without_batchnorm_is_refused(grouped):
    with pytest.raises(IncompatibleError):
        check_compatible(UnmixTns(), grouped)


@pytest.mark.parametrize(
    "values", [{"components": 0}, {"noise": 1.5}, {"temperature": 0.0}, {"full_batch": 0}]
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        UnmixTns(**values)
    with pytest.raises(BadInputError):
        UnmixTnsTent(**values)
