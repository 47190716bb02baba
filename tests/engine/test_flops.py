# SPDX-License-Identifier: Apache-2.0
"""Multiply-adds: what is counted is what a layer's sizes say, and the parts of APM sum up to its step."""

import pytest
import torch
from torch import nn

from tta_bench.engine.flops import multiply_adds, step_costs
from tta_bench.hyperparameters import create_method
from tta_bench.testing import tiny_clip, tiny_source


def test_products_and_convolutions_are_counted_and_nothing_else():
    a, b = torch.rand(5, 7), torch.rand(7, 3)
    assert multiply_adds(lambda: (a @ b).relu().sum() * 2) == 5 * 7 * 3
    conv = nn.Conv2d(2, 4, 3, bias=False)
    assert multiply_adds(lambda: conv(torch.rand(1, 2, 8, 8))) == 6 * 6 * 4 * 2 * 9


def test_attention_is_counted_also_where_inference_fuses_it():
    layer, x = nn.MultiheadAttention(16, 4, batch_first=True).eval(), torch.rand(1, 6, 16)
    before = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad():
        found = multiply_adds(lambda: layer(x, x, x, need_weights=False))
    assert found == 4 * 6 * 16 * 16 + 2 * 6 * 6 * 16
    assert torch.backends.mha.get_fastpath_enabled() == before


@pytest.mark.parametrize("engine", ["reference", "fast", "active"])
def test_the_parts_of_apm_have_counts_and_formulas_that_agree(engine):
    rows = step_costs(create_method("apm", {"engine": engine}), tiny_clip())
    assert [row.part for row in rows] == ["source model", "student forward", "student backward", "optimiser"]
    assert rows[0].counted > 0
    for row in rows[1:3]:
        assert row.counted > 0
        if engine == "active":
            assert row.formula is None
        else:
            assert row.formula == pytest.approx(row.counted, rel=0.02)
    assert rows[3].moved_mib > 0
    assert (rows[1].times, rows[2].times, rows[3].times) == (20, 19, 19)


def test_a_method_that_names_no_parts_has_the_source_model_alone():
    rows = step_costs(create_method("source"), tiny_source())
    assert [(row.part, row.formula) for row in rows] == [("source model", None)]
