# SPDX-License-Identifier: Apache-2.0
import open_clip
import pytest
import timm
import torch
import torchvision
from torch import nn

from tta_bench.models.layers import NORMS, RuledBatchNorm, Slot, install_rules, list_layers, remove_rules
from tta_bench.norms import batch

RESIDUAL = {f"layer4.{block}.{norm}" for block in range(3) for norm in ("bn1", "bn2", "bn3")}
RESIDUAL |= {"layer4.0.downsample.1"}


def last_quarter(pattern, final, norms=("norm1", "norm2")):
    return {pattern.format(block) + norm for block in (9, 10, 11) for norm in norms} | {final}


LAST_STAGE = {
    "resnet50": (lambda: timm.create_model("resnet50"), "batch", RESIDUAL),
    "resnet50_gn": (lambda: timm.create_model("resnet50_gn"), "group", RESIDUAL),
    "timm vit": (
        lambda: timm.create_model("vit_base_patch16_224"),
        "layer",
        last_quarter("blocks.{}.", "norm"),
    ),
    "convnext": (
        lambda: timm.create_model("convnext_tiny"),
        "layer",
        {"stages.3.downsample.0", "head.norm"} | {f"stages.3.blocks.{block}.norm" for block in range(3)},
    ),
    "swin": (
        lambda: timm.create_model("swin_tiny_patch4_window7_224"),
        "layer",
        {"layers.3.downsample.norm", "norm"}
        | {f"layers.3.blocks.{block}.{norm}" for block in range(2) for norm in ("norm1", "norm2")},
    ),
    "torchvision vit": (
        lambda: torchvision.models.vit_b_16(),
        "layer",
        last_quarter("encoder.layers.encoder_layer_{}.", "encoder.ln", ("ln_1", "ln_2")),
    ),
    "torchvision resnet50": (
        lambda: torchvision.models.resnet50(),
        "batch",
        RESIDUAL,
    ),
    "clip vit": (
        lambda: open_clip.create_model("ViT-B-16").visual,
        "layer",
        last_quarter("transformer.resblocks.{}.", "ln_post", ("ln_1", "ln_2")),
    ),
    "clip resnet": (
        lambda: open_clip.create_model("RN50").visual,
        "batch",
        RESIDUAL,
    ),
}


@pytest.mark.parametrize("network", LAST_STAGE)
def test_norms_of_the_last_stage_are_found_by_type_and_position(network):
    make, kind, expected = LAST_STAGE[network]
    layers = list_layers(make())
    norms = [layer for layer in layers if layer.kind in NORMS]
    assert {layer.stages for layer in layers} == {4}
    assert {layer.kind for layer in norms} == {kind}
    assert {layer.name for layer in norms if layer.stage == 3} == expected
    assert {layer.stage for layer in norms} == {0, 1, 2, 3}
    assert [layer.stage for layer in norms] == sorted(layer.stage for layer in norms)


def test_tensors_are_the_layers_own_and_each_parameter_is_listed_once():
    network = timm.create_model("vit_tiny_patch16_224", depth=4)
    listed = [name for layer in list_layers(network) for name in layer.tensors]
    assert len(listed) == len(set(listed))
    direct = {"cls_token", "pos_embed"}  # of the root itself, in no layer
    assert set(listed) == {name for name, _ in network.named_parameters()} - direct


def test_a_plain_chain_is_one_stage():
    layers = list_layers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)))
    assert [(layer.kind, layer.stage, layer.stages) for layer in layers] == [
        ("conv", 0, 1),
        ("batch", 0, 1),
        ("linear", 0, 1),
    ]


def test_rules_replace_batch_norm_with_the_same_tensors_and_can_be_taken_back():
    network = timm.create_model("mobilenetv3_small_050").eval()  # norms with activations fused behind them
    names, before = list(network.state_dict()), [type(module) for module in network.modules()]
    x = torch.rand(2, 3, 32, 32)
    expected, slot = network(x), Slot()
    install_rules(network, slot)
    assert list(network.state_dict()) == names
    assert any(isinstance(module, RuledBatchNorm) for module in network.modules())
    torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-4)
    slot.rule = batch()
    assert not torch.allclose(network(x), expected, atol=1e-3)
    remove_rules(network)
    assert [type(module) for module in network.modules()] == before
    torch.testing.assert_close(network(x), expected)
