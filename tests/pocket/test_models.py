# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch.nn import functional as F

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.models.loading import ModelRequest
from tta_bench.pocket.models import load_pocket_bn, load_pocket_clip, load_pocket_gn
from tta_bench.pocket.scenes.spec import CLASS_NAMES
from tta_bench.pocket.zoo import build, build_clip

LOADERS = {"pocket-bn": load_pocket_bn, "pocket-gn": load_pocket_gn, "pocket-clip": load_pocket_clip}
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
def test_clip_compares_images_with_the_templates_mean_text(pretrained):
    source, x = load("pocket-clip", pretrained=pretrained, seed=3), torch.rand(4, 3, 32, 32)
    model, tokenizer = build_clip(pretrained=pretrained, seed=3)
    with torch.no_grad():
        texts = [tokenizer([template.format(name) for template in TEMPLATES]) for name in CLASS_NAMES]
        rows = [F.normalize(model.encode_text(text, normalize=True).mean(0), dim=0) for text in texts]
        cosines = model.encode_image(source.normalise(x), normalize=True) @ torch.stack(rows, 1)
        expected = model.logit_scale.exp() * cosines
    torch.testing.assert_close(source.logits(x), expected, atol=1e-4, rtol=1e-4)
    assert source.kind == "clip"


def test_names_and_classes_that_do_not_fit_are_refused():
    with pytest.raises(BadInputError, match="leave out 'big'"):
        load("pocket-bn", "big")
    with pytest.raises(IncompatibleError, match="16 outputs"):
        load("pocket-gn", class_names=("a", "b"), pretrained=False)
    assert load("pocket-clip", class_names=("a", "b"), pretrained=False).num_classes == 2
