# SPDX-License-Identifier: Apache-2.0
"""Several variants of a method scored from one pass: the same as a pass for each."""

from dataclasses import replace

import pytest
import torch
from tta_bench.adapters.stata import StatA
from tta_bench.adapters.tda import Tda
from tta_bench.adapters.tent import Tent
from tta_bench.adapters.vte import Vte

from tta_bench.errors import PluginError
from tta_bench.steps import share_a_pass, step, step_variants, way_of
from tta_bench.testing import tiny_clip, tiny_inputs, tiny_task


def test_a_shared_pass_gives_what_each_variant_gives_alone():
    source = tiny_clip(dtype=torch.float64)
    methods = [Tda(alpha=alpha, beta=beta) for alpha in (0.5, 2.0) for beta in (1.0, 5.0)]
    shared = methods[0].init(source, tiny_task(source, methods[0]))
    alone = [shared for _ in methods]
    for seed in range(3):
        inputs = tiny_inputs(source, 5, method=methods[0], seed=seed)
        shared, found = step_variants(methods, source, shared, inputs)
        for index, method in enumerate(methods):
            stepped = step(method, source, alone[index], inputs)
            alone[index] = stepped.state
            assert torch.equal(found[index], stepped.scores)
    assert not torch.equal(found[0], found[-1])


@pytest.mark.parametrize("method", [Vte(views=4), StatA()])
def test_episodes_start_from_the_first_state_one_by_one(method):
    source = tiny_clip(dtype=torch.float64)
    state = method.init(source, tiny_task(source, method))
    inputs = tiny_inputs(source, 3, method=method)
    way = way_of(method, per_image=True)
    after, (found,) = step_variants([method], source, state, inputs, way=way)
    expected = step(method, source, state, inputs, way=way).scores
    assert after is state
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_methods_that_do_not_share_a_pass_are_told_apart():
    assert share_a_pass(Tda(), Tda(alpha=3.0, beta=1.0))
    assert not share_a_pass(Tda(), Tda(capacity=4))
    assert not share_a_pass(Tda(), Vte())
    assert not share_a_pass(Tent(), Tent())
    source = tiny_clip()
    state = Tda().init(source, tiny_task(source, Tda()))
    with pytest.raises(PluginError, match="only in alpha, beta, negative_alpha"):
        step_variants(
            [Tda(), replace(Tda(), capacity=4)], source, state, tiny_inputs(source, 2, method=Tda())
        )
