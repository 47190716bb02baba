# SPDX-License-Identifier: Apache-2.0
"""Which tensors methods adapt in the architectures of the literature, against names written out from their plans."""

from functools import cache

import pytest

from tta_bench import registry
from tta_bench.errors import IncompatibleError
from tta_bench.models.loading import ModelRequest
from tta_bench.models.open_clip_models import load_open_clip
from tta_bench.models.timm_models import load_timm
from tta_bench.models.torchvision_models import load_torchvision

LOADERS = {"timm": load_timm, "torchvision": load_torchvision, "open_clip": load_open_clip}
ALL_NORMS = ("tent", "eta", "eata", "rdumb", "rpl", "rotta", "santa", "roid", "cmf")
LOWER_NORMS = ("sar", "deyo")
ALL_WEIGHTS = ("cotta", "memo", "rmt", "adacontrast")


def resnet(stages):
    """Norm layers of the first stages of a ResNet-50, its stem included."""
    yield "bn1"
    for stage, blocks in list(enumerate((3, 4, 6, 3), 1))[:stages]:
        yield f"layer{stage}.0.downsample.1"
        yield from (f"layer{stage}.{block}.bn{one}" for block in range(blocks) for one in (1, 2, 3))


def convnext(stages):
    """Norm layers of the first stages of a ConvNeXt-T; the final one belongs to the fourth."""
    yield "stem.1"
    for stage, blocks in list(enumerate((3, 3, 9, 3)))[:stages]:
        yield from [f"stages.{stage}.downsample.0"] if stage else []
        yield from (f"stages.{stage}.blocks.{block}.norm" for block in range(blocks))
    yield from ["head.norm"] if stages == 4 else []


def transformer(block, norms, first=(), last=()):
    """Norm layers of the first quarters of a ViT-B of 12 blocks; the final one belongs to the fourth."""

    def names(stages):
        yield from first
        yield from (f"{block.format(index)}.{norm}" for index in range(3 * stages) for norm in norms)
        yield from last if stages == 4 else ()

    return names


MODELS = {
    "timm/resnet50": resnet,
    "timm/resnet50_gn": resnet,
    "torchvision/resnet50": resnet,
    "timm/convnext_tiny": convnext,
    "timm/vit_base_patch16_224": transformer("blocks.{}", ("norm1", "norm2"), last=("norm",)),
    "torchvision/vit_b_16": transformer(
        "encoder.layers.encoder_layer_{}", ("ln_1", "ln_2"), last=("encoder.ln",)
    ),
    "open_clip/ViT-B-16": transformer(
        "transformer.resblocks.{}", ("ln_1", "ln_2"), first=("ln_pre",), last=("ln_post",)
    ),
}
HEADS = {
    "timm/resnet50": "fc", "timm/resnet50_gn": "fc", "torchvision/resnet50": "fc", "timm/convnext_tiny": "head.fc",
    "timm/vit_base_patch16_224": "head", "torchvision/vit_b_16": "heads.head",
}  # fmt: skip
BATCHNORM = ("timm/resnet50", "torchvision/resnet50")


@cache
def source(name):
    family, _, rest = name.partition("/")
    request = ModelRequest(name=name, rest=rest, class_names=tuple("abcdefghij"), pretrained=False)
    return LOADERS[family](request)


def made(name, **values):
    return registry.load("methods", name)(**values)


def affine(layers):
    return {f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")}


def adapted(method, model):
    """The tensors that a method names, without the prefix of a CLIP model's image side."""
    names = method.adapted_tensors(source(model))
    assert len(set(names)) == len(names)
    assert set(names) <= {*source(model).params, *source(model).buffers}
    return {name.removeprefix("visual.") for name in names}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", ALL_NORMS)
def test_all_norm_layers_are_adapted(method, model):
    assert adapted(made(method), model) == affine(MODELS[model](4))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", LOWER_NORMS)
def test_the_last_stage_and_the_final_norm_are_left_out(method, model):
    assert adapted(made(method), model) == affine(MODELS[model](3))


def test_layers_can_be_named_instead():
    method = made("sar", layers=("blocks.11.norm2", "norm"))
    assert adapted(method, "timm/vit_base_patch16_224") == affine(["blocks.11.norm2", "norm"])


@pytest.mark.parametrize("model", MODELS)
def test_tent_can_keep_to_one_kind_of_norm(model):
    kinds = {"batch": model in BATCHNORM, "group": model == "timm/resnet50_gn"}
    kinds["layer"] = not any(kinds.values())
    for kind, present in kinds.items():
        assert adapted(made("tent", layers=(kind,)), model) == (
            affine(MODELS[model](4)) if present else set()
        )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", ALL_WEIGHTS)
def test_full_model_methods_take_weights_and_biases_alone(method, model):
    names = adapted(made(method), model)
    rest = {name.removeprefix("visual.") for name in source(model).params} - names
    assert affine(MODELS[model](4)) < names
    assert {name.rpartition(".")[2] for name in names} == {"weight", "bias"}
    assert not {name.rpartition(".")[2] for name in rest} & {"weight", "bias"}
    others = {
        "timm/vit_base_patch16_224": {"cls_token", "pos_embed"},
        "torchvision/vit_b_16": {"class_token", "encoder.pos_embedding"},
        "open_clip/ViT-B-16": {"class_embedding", "positional_embedding", "proj"},
    }.get(model, set())
    assert others <= rest


@pytest.mark.parametrize("model", HEADS)
def test_the_classifier_is_told_from_the_rest(model):
    head = affine([HEADS[model]])
    everything = set(source(model).params)
    assert adapted(made("pl"), model) == everything
    assert adapted(made("pl", trains="classifier"), model) == head
    assert adapted(made("shot-im"), model) == everything - head


@pytest.mark.parametrize("model", MODELS)
def test_statistics_move_in_batchnorm_layers_alone(model):
    layers = MODELS[model](4) if model in BATCHNORM else ()
    moved = {f"{layer}.{leaf}" for layer in layers for leaf in ("running_mean", "running_var")}
    assert adapted(made("norm", statistics="ema"), model) == moved
    assert adapted(made("norm"), model) == set()


@pytest.mark.parametrize("model", MODELS)
def test_note_adapts_batchnorm_layers_alone(model):
    if model in BATCHNORM:
        assert adapted(made("note"), model) == affine(MODELS[model](4))
    else:
        assert adapted(made("note"), model) == set()
        with pytest.raises(IncompatibleError, match="finds nothing to adapt"):
            made("note").initial_state(source(model))


@pytest.mark.parametrize("method", ["source", "clip", "lame", "t3a", "ttaug"])
def test_methods_that_leave_the_model_alone_name_nothing(method):
    assert adapted(made(method), "timm/resnet50") == set()
