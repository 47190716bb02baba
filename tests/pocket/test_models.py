# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch.func import grad, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.models.loading import ModelRequest
from tta_bench.pocket.models import load_pocket_bn, load_pocket_clip, load_pocket_gn, load_pocket_vit_clip
from tta_bench.pocket.scenes.spec import CLASS_NAMES
from tta_bench.pocket.zoo import build, build_clip

LOADERS = {
    "pocket-bn": load_pocket_bn,
    "pocket-gn": load_pocket_gn,
    "pocket-clip": load_pocket_clip,
    "pocket-vit-clip": load_pocket_vit_clip,
}
CLIPS = ("pocket-clip", "pocket-vit-clip")
TEMPLATES = ("a photo of a {}.", "a picture of one {}.")


def load(family, rest="", **options):
    facts = {"name": family + rest, "rest": rest, "class_names": CLASS_NAMES, "templates": TEMPLATES}
    return LOADERS[family](ModelRequest(**{**facts, **options}))


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("name", ["pocket-bn", "pocket-gn"])
def test_classifiers_are_the_shipped_networks_behind_their_normalisation(name, pretrained):
    source, x = load(name, pretrained=pretrained, seed=3), torch.rand(4, 3, 32, 32)
    model = build(name, pretrained=pretrained, seed=3)
    torch.testing.assert_close(source.logits(x), model(source.normalise(x)), atol=1e-5, rtol=1e-4)
    assert (source.image_shape, source.num_classes, source.pretrained) == ((3, 32, 32), 16, pretrained)
    kind = {"pocket-bn": "batch", "pocket-gn": "group"}[name]
    assert source.normalisation((kind,)) == source.normalisation()
    assert source.layers[-1].stages > 1


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("name", CLIPS)
def test_clip_compares_images_with_the_templates_mean_text(name, pretrained):
    source, x = load(name, pretrained=pretrained, seed=3), torch.rand(4, 3, 32, 32)
    model, tokenizer = build_clip(name, pretrained=pretrained, seed=3)
    with torch.no_grad():
        texts = [tokenizer([template.format(name) for template in TEMPLATES]) for name in CLASS_NAMES]
        rows = [F.normalize(model.encode_text(text, normalize=True).mean(0), dim=0) for text in texts]
        cosines = model.encode_image(source.normalise(x), normalize=True) @ torch.stack(rows, 1)
        expected = model.logit_scale.exp() * cosines
    torch.testing.assert_close(source.logits(x), expected, atol=1e-4, rtol=1e-4)
    assert source.kind == "clip"


def test_the_tokens_of_the_vision_transformer_are_in_sight():
    source, x = load("pocket-vit-clip"), torch.rand(3, 3, 32, 32)
    found = source.forward(x)
    assert found.tokens.shape == (3, 65, 64)
    projection = source.params["head.proj.weight"]
    torch.testing.assert_close(found.features, found.tokens[:, 0] @ projection.T)
    assert source.layers[-1].stages == 4
    assert len(source.normalisation(("layer",))) == 2 * (2 * 4 + 1)
    # A token in front of the patches changes what the class token gathers from them.
    moved = {"trunk.cls_token": source.params["trunk.cls_token"] + 1}
    assert not torch.equal(source.forward(x, moved).tokens[:, 1:], found.tokens[:, 1:])


def test_patch_features_are_projected_like_the_class_token():
    source, x = load("pocket-vit-clip"), torch.rand(3, 3, 32, 32)
    found, (image, patches) = source.forward(x), source.patches(x)
    torch.testing.assert_close(image, found.features)
    torch.testing.assert_close(patches, found.tokens[:, 1:] @ source.params["head.proj.weight"].T)
    assert load("pocket-clip").patches(x) is None


def test_a_shift_of_the_image_by_a_token_shifts_the_patch_tokens():
    """The stem sees 11 pixels, so patches away from the border move with the image."""
    model, _ = build_clip("pocket-vit-clip")
    embed, x = model.visual.trunk.patch_embed, torch.rand(1, 3, 32, 32)
    here, moved = (embed.backbone[0](image) for image in (x, x.roll(4, 3)))
    torch.testing.assert_close(moved[..., 4:-2], here[..., 2:-4])
    assert embed(x).shape == (1, 64, 64)


def test_both_clips_share_their_text_side():
    ours, theirs = (load(name).text for name in CLIPS)
    assert torch.equal(ours.prototypes(), theirs.prototypes())
    assert torch.equal(ours.scale, theirs.scale)


def test_gradients_of_single_images_agree_with_the_batch_in_float64():
    source = load("pocket-vit-clip", dtype=torch.float64)
    x, labels = torch.rand(4, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 3, 7, 15])
    name = "trunk.blocks.1.norm1.weight"

    def loss(weight, image, label):
        return F.cross_entropy(source.logits(image[None], {name: weight}), label[None])

    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no rule for vmap on the CPU
        together = vmap(grad(loss), in_dims=(None, 0, 0))(source.params[name], x, labels)
        alone = torch.stack([grad(loss)(source.params[name], a, b) for a, b in zip(x, labels, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=1e-9)
    assert alone.abs().sum() > 0


def test_names_and_classes_that_do_not_fit_are_refused():
    with pytest.raises(BadInputError, match="leave out 'big'"):
        load("pocket-bn", "big")
    with pytest.raises(IncompatibleError, match="16 outputs"):
        load("pocket-gn", class_names=("a", "b"), pretrained=False)
    assert load("pocket-clip", class_names=("a", "b"), pretrained=False).num_classes == 2
