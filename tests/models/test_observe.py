# SPDX-License-Identifier: Apache-2.0
"""Layer outputs and prompt tokens against each library's own modules, run by hand."""

import open_clip
import pytest
import timm
import torch
import torchvision
from torch import nn

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import IncompatibleError, UnknownNameError
from tta_bench.models.classifier import Classifier
from tta_bench.models.clip import ClipNetwork
from tta_bench.models.source import SourceModel
from tta_bench.models.transformer import find_transformer
from tta_bench.norms import batch
from tta_bench.testing import tiny_clip, tiny_images, tiny_source

SIZE, PATCH, WIDTH, DEPTH = 16, 4, 24, 3


def timm_vit(**options):
    values = {
        "img_size": SIZE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 3, "num_classes": 7,
    }  # fmt: skip
    return timm.models.vision_transformer.VisionTransformer(**(values | options))


def torchvision_vit():
    return torchvision.models.VisionTransformer(SIZE, PATCH, DEPTH, 3, WIDTH, 32, num_classes=7)


def open_clip_tower(**options):
    return open_clip.transformer.VisionTransformer(
        SIZE, PATCH, WIDTH, DEPTH, 3, 2.0, output_dim=16, **options
    )


def wrapped(network, kind="classifier"):
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if kind == "clip":
        scale = torch.tensor(10.0)
        unit = torch.nn.functional.normalize(torch.randn(7, 16), dim=-1)
        network = ClipNetwork(network, unit, scale, None)
    else:
        network = Classifier(network, 7)
    return SourceModel(
        network, name="vit", kind=kind, class_names=tuple("abcdefg"), mean=(0.4,) * 3, std=(0.2,) * 3,
        preprocess=Preprocess((SIZE, SIZE)), dtype=torch.float64,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def images():
    return torch.rand(3, 3, SIZE, SIZE, dtype=torch.float64)


@pytest.fixture
def prompts():
    return torch.randn(2, WIDTH, dtype=torch.float64)


def by_hand(source, network, library, images, prompts):
    """Return the class token after each block, normalised by what follows, and the logits."""
    x, n = source.normalise(images), len(images)
    extra = prompts.expand(n, -1, -1)
    if library == "timm":
        tokens = network._pos_embed(network.patch_embed(x))
        blocks, final, head = network.blocks, network.norm, network.head
        firsts = [block.norm1 for block in blocks]
    elif library == "torchvision":
        tokens = torch.cat([network.class_token.expand(n, -1, -1), network._process_input(x)], 1)
        tokens = tokens + network.encoder.pos_embedding
        blocks, final, head = network.encoder.layers, network.encoder.ln, network.heads
        firsts = [block.ln_1 for block in blocks]
    else:
        patches = network.conv1(x).flatten(2).transpose(1, 2)
        tokens = (
            torch.cat([network.class_embedding.expand(n, 1, -1), patches], 1) + network.positional_embedding
        )
        blocks, final = network.transformer.resblocks, network.ln_post
        firsts = [block.ln_1 for block in blocks]
    tokens = torch.cat([tokens[:, :1], extra, tokens[:, 1:]], 1)
    if library == "open_clip":
        tokens = network.ln_pre(tokens)
    found = []
    for block, norm in zip(blocks, [*firsts[1:], final], strict=True):
        tokens = block(tokens)
        found.append(norm(tokens)[:, 0])
    logits = source.head(found[-1] @ network.proj) if library == "open_clip" else head(found[-1])
    return found, logits


MODELS = {
    "timm": lambda: (timm_vit(), "classifier"),
    "torchvision": lambda: (torchvision_vit(), "classifier"),
    "open_clip": lambda: (open_clip_tower(), "clip"),
}


@pytest.mark.parametrize("library", MODELS)
def test_prompts_and_class_tokens_are_those_of_the_library(library, images, prompts):
    network, kind = MODELS[library]()
    source = wrapped(network, kind)
    parts = source.transformer
    assert (parts.width, parts.patch, len(parts.norms)) == (WIDTH, (PATCH, PATCH), DEPTH)
    for extra in (prompts, prompts[:0]):
        seen = source.observe(
            images, layers=parts.norms, class_token=True, prompts=extra if len(extra) else None
        )
        with torch.no_grad():
            tokens, logits = by_hand(source, network, library, images, extra)
        torch.testing.assert_close(seen.logits, logits)
        for name, token in zip(parts.norms, tokens, strict=True):
            torch.testing.assert_close(seen.outputs[name], token)
    torch.testing.assert_close(seen.logits, source.logits(images))


@pytest.mark.parametrize("library", MODELS)
def test_prompts_matter_and_leave_no_trace(library, images, prompts):
    network, kind = MODELS[library]()
    source = wrapped(network, kind)
    plain = source.logits(images)
    assert not torch.allclose(source.observe(images, prompts=prompts).logits, plain)
    assert torch.equal(source.logits(images), plain)
    assert not any(m._forward_hooks for m in network.modules())
    with pytest.raises(RuntimeError):
        source.observe(images, prompts=prompts[:, :-1])
    assert torch.equal(source.logits(images), plain)


def test_the_final_norm_may_come_after_the_pooling(images, prompts):
    network = open_clip_tower(final_ln_after_pool=True)
    source = wrapped(network, "clip")
    seen = source.observe(images, layers=source.transformer.norms, class_token=True, prompts=prompts)
    with torch.no_grad():
        tokens, _ = by_hand(source, network, "open_clip", images, prompts)
    torch.testing.assert_close(seen.outputs["ln_post"], tokens[-1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: timm_vit(global_pool="avg"),
        lambda: timm_vit(class_token=False, global_pool="avg"),
        lambda: open_clip_tower(pool_type="avg"),
        lambda: open_clip_tower(attentional_pool=True),
        lambda: timm_vit(block_fn=timm.models.vision_transformer.ResPostBlock),
        lambda: torchvision.models.resnet18(),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2)),
    ],
    ids=["average", "no class token", "clip average", "attention pool", "post-norm", "convolutions", "plain"],
)  # fmt: skip
def test_other_networks_are_no_transformers_with_a_class_token(make):
    assert find_transformer(make()) is None


def test_models_of_open_clip_hold_those_of_timm_in_a_trunk():
    root = nn.Module()
    root.trunk = timm_vit(num_classes=0)
    found = find_transformer(root)
    assert found.norms == ("trunk.blocks.1.norm1", "trunk.blocks.2.norm1", "trunk.norm")
    assert found.entry == "trunk.norm_pre"


def test_tiny_models_have_class_tokens_too():
    assert tiny_source("layer").transformer.norms == ("blocks.1.ln_1", "blocks.2.ln_1", "norm")
    assert tiny_clip().transformer is not None
    assert tiny_source("batch").transformer is None


def test_a_model_without_a_class_token_refuses_prompts():
    source = tiny_source("batch")
    with pytest.raises(IncompatibleError, match="class token"):
        source.observe(tiny_images(source, 2, 0), prompts=torch.zeros(1, 16))


def test_outputs_of_layers_carry_gradients_and_are_only_those_asked_for():
    source = tiny_source("batch", dtype=torch.float64)
    x = tiny_images(source, 4, 0)
    params = {name: p.clone().requires_grad_() for name, p in source.params.items()}
    seen = source.observe(x, params, layers=("norm", "blocks.1.conv1"))
    assert set(seen.outputs) == {"norm", "blocks.1.conv1"}
    (grad,) = torch.autograd.grad(seen.outputs["norm"].square().sum(), [params["stem.weight"]])
    assert grad.any()
    stem = nn.functional.conv2d(source.normalise(x), source.params["stem.weight"], padding=1)
    expected = nn.functional.batch_norm(
        stem, source.buffers["norm.running_mean"], source.buffers["norm.running_var"],
        source.params["norm.weight"], source.params["norm.bias"],
    )  # fmt: skip
    torch.testing.assert_close(seen.outputs["norm"].detach(), expected)
    ruled = source.observe(x, layers=("norm",), norm=batch())
    torch.testing.assert_close(ruled.outputs["norm"].mean((0, 2, 3)), source.params["norm.bias"])
    assert torch.equal(ruled.logits, source.logits(x, norm=batch()))


def test_a_fused_activation_is_not_part_of_a_norm_layer_s_output():
    network = timm.create_model("efficientnet_b0", num_classes=7)
    source = SourceModel(
        Classifier(network, 7), name="fused", kind="classifier", class_names=tuple("abcdefg"), mean=(0.5,) * 3,
        std=(0.5,) * 3, preprocess=Preprocess((32, 32)),
    )  # fmt: skip
    seen = source.observe(torch.rand(2, 3, 32, 32), layers=("bn1",), norm=batch())
    assert float(seen.outputs["bn1"].min()) < -0.3  # SiLU never goes below -0.28


def test_an_activation_in_place_does_not_change_what_was_seen():
    network = torchvision.models.resnet18(num_classes=7)
    source = SourceModel(
        Classifier(network, 7), name="resnet", kind="classifier", class_names=tuple("abcdefg"), mean=(0.5,) * 3,
        std=(0.5,) * 3, preprocess=Preprocess((32, 32)),
    )  # fmt: skip
    x = torch.rand(2, 3, 32, 32)
    seen = source.observe(x, layers=("bn1", "conv1"), norm=batch())
    assert float(seen.outputs["bn1"].min()) < 0
    torch.testing.assert_close(seen.outputs["conv1"], network.conv1(source.normalise(x)))


def test_an_unknown_layer_is_refused_with_a_suggestion():
    source = tiny_source("batch")
    with pytest.raises(UnknownNameError, match=r"blocks\.1"):
        source.observe(tiny_images(source, 2, 0), layers=("blocks.11",))


def test_observing_works_under_vmap():
    source = tiny_source("layer")
    x = tiny_images(source, 3, 0)
    layers, prompts = source.transformer.norms, torch.randn(3, 2, 16)

    def one(image, tokens):
        seen = source.observe(image[None], layers=layers, class_token=True, prompts=tokens)
        return seen.logits, seen.outputs

    logits, outputs = torch.func.vmap(one)(x, prompts)
    for i in range(3):
        alone = source.observe(x[i : i + 1], layers=layers, class_token=True, prompts=prompts[i])
        torch.testing.assert_close(logits[i], alone.logits)
        torch.testing.assert_close(outputs[layers[1]][i], alone.outputs[layers[1]])
