# SPDX-License-Identifier: Apache-2.0
"""Multiply-adds: what is counted is what a layer's sizes say, and the parts of APM sum up to its step."""

import pytest
import torch
from torch import nn

from tta_bench.engine import flops
from tta_bench.engine.flops import multiply_adds, step_costs
from tta_bench.engine.layer_costs import layers_multiply_adds
from tta_bench.hyperparameters import create_method
from tta_bench.models.loading import load_model
from tta_bench.testing import tiny_clip, tiny_source


def test_products_and_convolutions_are_counted_and_nothing_else():
    a, b = torch.rand(5, 7), torch.rand(7, 3)
    assert multiply_adds(lambda: (a @ b).relu().sum() * 2) == 5 * 7 * 3
    conv = nn.Conv2d(2, 4, 3, bias=False)
    assert multiply_adds(lambda: conv(torch.rand(1, 2, 8, 8))) == 6 * 6 * 4 * 2 * 9


@pytest.mark.portable
def test_attention_is_counted_also_where_inference_fuses_it():
    layer, x = nn.MultiheadAttention(16, 4, batch_first=True).eval(), torch.rand(1, 6, 16)
    before = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad():
        found = multiply_adds(lambda: layer(x, x, x, need_weights=False))
    assert found == 4 * 6 * 16 * 16 + 2 * 6 * 6 * 16
    assert torch.backends.mha.get_fastpath_enabled() == before


@pytest.mark.portable
@pytest.mark.parametrize("engine", ["reference", "fast", "active"])
def test_the_parts_of_apm_have_counts_and_formulas_that_agree(engine):
    rows = step_costs(create_method("apm", {"engine": engine}), tiny_clip())
    assert [row.part for row in rows] == ["source model", "student forward", "student backward", "optimiser"]
    assert rows[0].formula == pytest.approx(rows[0].counted, rel=0.02)
    for row in rows[1:3]:
        assert row.counted > 0
        if engine == "active":
            assert row.formula is None
        else:
            assert row.formula == pytest.approx(row.counted, rel=0.02)
    assert rows[3].moved_mib > 0
    assert (rows[1].times, rows[2].times, rows[3].times) == (20, 19, 19)


@pytest.mark.portable
@pytest.mark.parametrize(
    "name",
    [
        "pocket-bn",
        "pocket-clip",
        "timm/resnet18",
        "timm/vit_tiny_patch16_224",
        "timm/convnext_atto",
        "timm/swin_tiny_patch4_window7_224",
        "torchvision/vit_b_16",
        "open_clip/ViT-B-32",
        "open_clip/RN50",
    ],
)
def test_the_layers_of_a_network_cost_what_the_library_counts(name):
    classes = ("ant", "bee")
    if name.startswith("pocket"):
        from tta_bench.pocket.datasets import POCKET

        classes = POCKET.class_names
    source = load_model(name, classes, pretrained=name.startswith("pocket"))
    image = torch.rand(2, *source.image_shape)
    with torch.no_grad():
        found = layers_multiply_adds(lambda: source.encode(image))
        counted = multiply_adds(lambda: source.encode(image))
    assert found == pytest.approx(counted, rel=0.001)
    assert layers_multiply_adds(lambda: None) == 0


def test_cross_attention_and_groups_enter_by_their_sizes():
    layer = nn.MultiheadAttention(8, 2)
    query, key = torch.rand(3, 2, 8), torch.rand(5, 2, 8)
    expected = 2 * (3 * 64 + 2 * 5 * 64 + 3 * 64 + 2 * 3 * 5 * 8)
    assert layers_multiply_adds(lambda: layer(query, key, key)) == expected
    assert layers_multiply_adds(lambda: layer(query=query, key=key, value=key)) == expected
    assert layers_multiply_adds(lambda: layer(query, value=key, key=key)) == expected
    for conv in (nn.Conv2d(4, 8, 3, groups=2), nn.ConvTranspose2d(4, 8, 3, stride=2, groups=2)):
        x = torch.rand(2, 4, 7, 5)
        assert layers_multiply_adds(lambda conv=conv, x=x: conv(x)) == multiply_adds(
            lambda conv=conv, x=x: conv(x)
        )


@pytest.mark.parametrize(
    "name",
    ["torchvision/swin_t", "timm/beit_base_patch16_224", "timm/xcit_nano_12_p16_224", "timm/coat_tiny"],
)
def test_a_network_with_an_attention_of_another_kind_has_no_formula(name):
    source = load_model(name, ("ant", "bee"), pretrained=False)
    with torch.no_grad():
        assert layers_multiply_adds(lambda: source.encode(torch.rand(1, *source.image_shape))) is None


def test_a_method_that_names_no_parts_has_the_source_model_alone():
    rows = step_costs(create_method("source"), tiny_source())
    assert [row.part for row in rows] == ["source model"]
    assert rows[0].formula == pytest.approx(rows[0].counted, rel=0.02)


def test_a_count_that_its_formula_contradicts_is_told(monkeypatch):
    whole = flops.multiply_adds
    monkeypatch.setattr(flops, "multiply_adds", lambda work: whole(work) * 0.86)
    with pytest.warns(
        UserWarning, match=r"torch 2\..* multiply-adds for the source model, .* trust the formula"
    ):
        step_costs(create_method("source"), tiny_source())
