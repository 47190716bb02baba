# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from tta_bench.errors import BadInputError, IncompatibleError, UnknownNameError
from tta_bench.models import open_clip_models
from tta_bench.models.clip import preprocess_of
from tta_bench.models.loading import ModelRequest
from tta_bench.models.open_clip_models import load_hub, load_open_clip, tag_facts
from tta_bench.norms import batch

NAMES = ("cat", "dog", "teapot")
TEMPLATES = ("a photo of a {}.", "art of the {}.")
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VIT = {"image_size": 48, "layers": 3, "width": 64, "head_width": 32, "patch_size": 16}
TINY = {
    "tiny-vit": {"embed_dim": 32, "vision_cfg": VIT, "text_cfg": TEXT},
    "tiny-vit-bias": {
        "embed_dim": 32,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": VIT | {"no_ln_pre": True, "pool_type": "avg"},
        "text_cfg": TEXT | {"no_causal_mask": True, "pool_type": "last"},
    },
    "tiny-rn": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        "text_cfg": TEXT,
    },
    "tiny-trunk": {
        "embed_dim": 32,
        "vision_cfg": {
            "timm_model_name": "resnet10t",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 64,
        },
        "text_cfg": TEXT,
    },
    "tiny-trunk-vit": {
        "embed_dim": 32,
        "vision_cfg": {
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "token",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": TEXT,
    },
    "tiny-coca": {
        "embed_dim": 32,
        "vision_cfg": VIT | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
        "multimodal_cfg": TEXT | {"attn_pooler_heads": 2, "dim_head": 32},
        "custom_text": True,
    },
}


@pytest.fixture(scope="module", autouse=True)
def tiny_configurations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configurations")
    for name, config in TINY.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Hugging Face cache without a network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def put_in_cache(cache, repository, **files):
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for name, write in files.items():
        write(snapshot / name.replace("__", "."))


def request(rest, names=NAMES, family="open_clip/", **options):
    options = {"pretrained": False, "templates": TEMPLATES, **options}
    return ModelRequest(name=f"{family}{rest}", rest=rest, class_names=names, **options)


def library_model(architecture, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.create_model(architecture).eval()


def photo(width=101, height=80):
    y, x = np.mgrid[0:height, 0:width]
    grain = np.random.default_rng(0).normal(0, 20, (height, width, 3))
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], -1)
    return Image.fromarray(np.clip(128 + 80 * waves + grain, 0, 255).astype(np.uint8))


@torch.no_grad()
def library_logits(model, architecture, images):
    """Zero-shot logits by the library's own functions: image and text features, temperature, bias."""
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    tokenizer = open_clip.get_tokenizer(architecture)
    features = model.encode_image(torch.stack([transform(image) for image in images]), normalize=True)
    columns = []
    for name in NAMES:
        texts = tokenizer([template.format(name) for template in TEMPLATES])
        columns.append(F.normalize(model.encode_text(texts, normalize=True).mean(0), dim=0))
    logits = model.logit_scale.exp() * features @ torch.stack(columns, dim=1)
    return logits if getattr(model, "logit_bias", None) is None else logits + model.logit_bias


@pytest.mark.parametrize("architecture", TINY)
def test_logits_equal_the_librarys_own_with_its_own_preprocessing(architecture):
    source = load_open_clip(request(architecture))
    images = photo(), photo(60, 130)
    expected = library_logits(library_model(architecture), architecture, images)
    found = source.forward(torch.stack([source.preprocess(image) for image in images]) / 255)
    torch.testing.assert_close(found.logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(source.head(found.features), found.logits)
    assert (found.tokens is not None) == (architecture not in ("tiny-rn", "tiny-trunk"))
    assert source.kind == "clip"
    assert source.text is not None


@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preprocessing_is_open_clips_own_bit_for_bit(resize_mode, interpolation):
    facts = {"size": 48, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    facts |= {"resize_mode": resize_mode, "interpolation": interpolation}
    transform = image_transform_v2(PreprocessCfg(**facts), is_train=False)
    for image in (photo(), photo(60, 130)):
        torch.testing.assert_close(preprocess_of(facts, "x")(image) / 255, transform(image), rtol=0, atol=0)


def test_preprocessing_that_pads_is_refused():
    with pytest.raises(IncompatibleError, match="'longest'"):
        preprocess_of({"size": 48, "resize_mode": "longest", "interpolation": "bicubic"}, "x")


def test_tensors_are_the_visual_towers_alone_and_the_text_tower_is_frozen():
    source = load_open_clip(request("tiny-vit"))
    assert set(source.params) == {name for name, _ in library_model("tiny-vit").visual.named_parameters()}
    assert not any(parameter.requires_grad for parameter in source.text._model.parameters())
    assert not source.text._model.training


def test_overriding_tensors_equals_setting_them_in_the_library():
    source, model = load_open_clip(request("tiny-vit")), library_model("tiny-vit")
    changed = {"ln_post.weight": torch.rand(64), "transformer.resblocks.1.ln_2.bias": torch.randn(64)}
    before = source.weights_sha256
    x = torch.rand(2, 3, 48, 48)
    expected = source.encode(x)
    model.visual.load_state_dict(changed, strict=False)
    found = source.encode(x, changed)
    torch.testing.assert_close(found, model.encode_image(source.normalise(x)), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, expected)
    assert load_open_clip(request("tiny-vit")).weights_sha256 == before == source.weights_sha256
    assert torch.equal(source.encode(x), expected)


def test_gradients_reach_tensors_that_stand_in_for_the_models_own():
    source = load_open_clip(request("tiny-vit"))
    affine = {name: value.clone().requires_grad_() for name, value in source.normalisation().items()}
    source.logits(torch.rand(2, 3, 48, 48), affine).logsumexp(-1).sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in affine.values())


@pytest.mark.parametrize("architecture", ["tiny-rn", "tiny-trunk"])
def test_batch_statistics_equal_training_mode(architecture):
    source, model = load_open_clip(request(architecture)), library_model(architecture).train()
    x = torch.rand(4, 3, 64, 64)
    expected = model.encode_image(source.normalise(x))
    torch.testing.assert_close(source.encode(x, norm=batch()), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("architecture", ["tiny-vit", "tiny-vit-bias", "tiny-rn"])
def test_float64_prototypes_are_exact_to_float64(architecture):
    source = load_open_clip(request(architecture, dtype=torch.float64))
    model = library_model(architecture).double()
    x = torch.rand(2, *source.image_shape, dtype=torch.float64)
    tokens = open_clip.get_tokenizer(architecture)([TEMPLATES[0].format(name) for name in NAMES])
    with torch.no_grad():
        expected = F.normalize(model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(source.text.prototypes(TEMPLATES[:1]), expected, atol=1e-14, rtol=1e-12)
    assert source.logits(x).dtype == source.head_weight().dtype == torch.float64
    torch.testing.assert_close(source.head_weight(), source.text.prototypes())


def test_random_weights_come_from_the_seed_alone():
    state = torch.get_rng_state()
    first, again, other = (load_open_clip(request("tiny-vit", seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_are_read_from_a_file_in_the_place_of_a_tag(tmp_path, suffix):
    tensors, path = library_model("tiny-vit", seed=3).state_dict(), tmp_path / f"mine.{suffix}"
    if suffix == "pt":
        torch.save({"state_dict": {f"module.{key}": value for key, value in tensors.items()}}, path)
    else:
        save_file(tensors, path)
    source = load_open_clip(request(f"tiny-vit:{path}", pretrained=True))
    assert source.pretrained
    assert all(torch.equal(source.params[key], tensors[f"visual.{key}"]) for key in source.params)
    with pytest.raises(BadInputError, match="do not fit"):
        load_open_clip(request(f"tiny-rn:{path}", pretrained=True))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"<html>please log in</html>", b"\x80\x02garbage", b"PK\x03\x04 cut"]
)
def test_a_file_that_holds_no_weights_is_named(tmp_path, suffix, content):
    path = tmp_path / f"mine.{suffix}"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=rf"mine\.{suffix}") as caught:
        load_open_clip(request(f"tiny-vit:{path}", pretrained=True))
    assert "\n" not in str(caught.value)


def test_a_tags_weights_are_read_from_the_hub_cache_with_the_tags_own_preprocessing(cache, monkeypatch):
    tag = {"hf_hub": "org/tiny/", "mean": (0.5,) * 3, "std": (0.4,) * 3, "resize_mode": "squash"}
    tag |= {"interpolation": "bilinear"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-vit", {"made_up": tag})
    with pytest.raises(BadInputError, match=r"huggingface.co/org/tiny.*HF_HOME.*pretrained=False"):
        load_open_clip(request("tiny-vit:made_up", pretrained=True))
    tensors = library_model("tiny-vit", seed=3).state_dict()
    put_in_cache(cache, "org/tiny", open_clip_model__safetensors=lambda path: save_file(tensors, path))
    source = load_open_clip(request("tiny-vit:made-up", pretrained=True))  # open_clip takes either dash
    assert torch.equal(source.params["proj"], tensors["visual.proj"])
    assert source.mean.tolist() == [0.5] * 3
    assert source.preprocess.resize is None
    assert source.preprocess.interpolation == "bilinear"


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_repository_on_the_hub_is_read_from_the_cache(cache, pretrained):
    facts = {"model_cfg": TINY["tiny-vit"], "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.4] * 3}}
    tensors = library_model("tiny-vit", seed=3).state_dict()
    put_in_cache(
        cache,
        "org/repo",
        open_clip_config__json=lambda path: path.write_text(json.dumps(facts)),
        open_clip_pytorch_model__bin=lambda path: torch.save(tensors, path),
    )
    source = load_hub(request("org/repo", family="hf-hub:", pretrained=pretrained, seed=4))
    assert source.mean.tolist() == [0.5] * 3
    expected = tensors if pretrained else library_model("tiny-vit", seed=4).state_dict()
    assert all(torch.equal(source.params[key], expected[f"visual.{key}"]) for key in source.params)


def test_a_repository_that_cannot_be_fetched_says_so(cache):
    with pytest.raises(
        BadInputError, match=r"https://huggingface.co/org/repo,.*could not be fetched.*connect once"
    ):
        load_hub(request("org/repo", family="hf-hub:", pretrained=True))
    put_in_cache(cache, "org/other", open_clip_config__json=lambda path: path.write_text("{}"))
    with pytest.raises(BadInputError, match="model_cfg"):
        load_hub(request("org/other", family="hf-hub:", pretrained=True))
    with pytest.raises(BadInputError, match="could not be fetched"):
        load_hub(request("not a repository", family="hf-hub:", pretrained=True))


def quick_mismatches():
    """All pairs of open_clip itself whose weights want QuickGELU and whose configuration has it not."""
    return [
        (model, tag)
        for model, tag in open_clip.list_pretrained()
        if open_clip.get_pretrained_cfg(model, tag).get("quick_gelu")
        and not open_clip.get_model_config(model).get("quick_gelu")
    ]


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_quickgelu_trap_is_an_error_before_any_download(monkeypatch, pretrained):
    monkeypatch.setattr(open_clip_models, "hub_file", lambda *_: pytest.fail("asked the network"))
    right = r"use 'open_clip/ViT-B-16-quickgelu:openai'"
    with pytest.raises(BadInputError, match=right):
        load_open_clip(request("ViT-B-16:openai", pretrained=pretrained))
    with pytest.raises(BadInputError, match=right):
        load_open_clip(request("ViT-B/16:openai", pretrained=pretrained))


def test_every_quickgelu_mismatch_is_caught_and_the_named_model_is_right():
    mismatches = quick_mismatches()
    assert ("ViT-B-32", "openai") in mismatches
    for model, tag in mismatches:
        with pytest.raises(BadInputError, match=f"use 'open_clip/{model}-quickgelu:{tag}'"):
            tag_facts(model, tag)
        assert tag_facts(f"{model}-quickgelu", tag)["quick_gelu"]


@pytest.mark.parametrize(
    ("rest", "error", "match"),
    [
        ("ViT-B-61", UnknownNameError, "ViT-B-16"),
        ("ViT-B-16:laion2b_s34b_b88", UnknownNameError, "laion2b_s34b_b88k"),
        ("ViT-B-32-quickgelu:laion2b_s34b_b79k", UnknownNameError, "laion400m"),
        ("ViT-B-16", BadInputError, "weights after a colon.*laion2b_s34b_b88k"),
    ],
)
def test_bad_names_get_one_clear_sentence(rest, error, match):
    with pytest.raises(error, match=match):
        load_open_clip(request(rest, pretrained=True))


def test_a_text_side_that_needs_a_missing_package_names_it(monkeypatch):
    monkeypatch.setattr(open_clip_models, "find_spec", lambda name: None)
    with pytest.raises(BadInputError, match="pip install transformers"):
        load_open_clip(request("roberta-ViT-B-32"))
