# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config

from tta_bench.errors import BadInputError, IncompatibleError, UnknownNameError
from tta_bench.models.loading import ModelRequest
from tta_bench.models.timm_models import load_timm, preprocess_of
from tta_bench.norms import batch, track

SMALL = "mobilenetv3_small_050"
SMALL_WEIGHTS = f"{SMALL}.lamb_in1k"
TEN = tuple("abcdefghij")


def request(rest, names=TEN, **options):
    return ModelRequest(name=f"timm/{rest}", rest=rest, class_names=names, **{"pretrained": False, **options})


def thousand(rest, **options):
    return request(rest, tuple(map(str, range(1000))), **{"pretrained": True, **options})


def photo(width=301, height=260):
    """Smooth colours with some grain, so that the filter of a resize matters."""
    y, x = np.mgrid[0:height, 0:width]
    grain = np.random.default_rng(0).normal(0, 20, (height, width, 3))
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], -1)
    return Image.fromarray(np.clip(128 + 80 * waves + grain, 0, 255).astype(np.uint8))


def pixels(source, *images):
    return torch.stack([source.preprocess(image) for image in images]) / 255


def library_copy(source, architecture, classes=10):
    """The same weights in the library's own model, which checks every tensor name as well."""
    model = timm.create_model(architecture, num_classes=classes)
    model.load_state_dict({**source.params, **source.buffers})
    return model.eval()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Hugging Face cache without a network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def put_in_cache(cache, repository, name, tensors):
    folder = cache / f"models--{repository.replace('/', '--')}"
    commit = "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    path = folder / "snapshots" / commit / name
    if name.endswith(".safetensors"):
        save_file(tensors, path)
    else:
        torch.save(tensors, path)


@pytest.mark.parametrize(
    "architecture",
    ["resnet18", "vit_tiny_patch16_224", "convnext_atto", "resnet50_gn", SMALL, "mixer_s32_224"],
)
def test_logits_equal_the_librarys_own_with_its_own_preprocessing(architecture):
    source = load_timm(request(architecture))
    model = library_copy(source, architecture)
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    images = photo(), photo(200, 333)
    with torch.no_grad():
        expected = model(torch.stack([transform(image) for image in images]))
        found = source.forward(pixels(source, *images))
    torch.testing.assert_close(found.logits, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(source.head(found.features), expected, atol=2e-5, rtol=1e-4)
    assert found.features.shape == (2, source.dim)
    assert (found.tokens is not None) == (architecture in ("vit_tiny_patch16_224", "mixer_s32_224"))


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize(
    ("crop_pct", "interpolation"), [(0.875, "bilinear"), (0.95, "bicubic"), (1.0, "bicubic")]
)
@pytest.mark.parametrize("size", [(301, 260), (96, 200), (224, 224)])
def test_preprocessing_is_timms_own_bit_for_bit(crop_mode, crop_pct, interpolation, size):
    config = {
        "input_size": (3, 224, 224),
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
        "interpolation": interpolation,
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
    }
    expected = create_transform(**config)(photo(*size))
    torch.testing.assert_close(preprocess_of(config, "x")(photo(*size)) / 255, expected, rtol=0, atol=0)


def test_preprocessing_that_pads_is_refused():
    config = {"input_size": (3, 224, 224), "crop_pct": 1.0, "crop_mode": "border", "interpolation": "bicubic"}
    with pytest.raises(IncompatibleError, match="'border'"):
        preprocess_of(config, "x")


def test_overriding_tensors_equals_setting_them_in_the_library():
    source = load_timm(request("resnet18"))
    model = library_copy(source, "resnet18")
    x = torch.rand(2, 3, 64, 64)
    changed = {
        "fc.bias": torch.randn(10),
        "layer4.1.bn2.weight": torch.randn(512),
        "bn1.running_mean": torch.ones(64),
    }
    model.load_state_dict(changed, strict=False)
    torch.testing.assert_close(source.logits(x, changed), model(source.normalise(x)), atol=2e-5, rtol=1e-4)


def test_batch_statistics_equal_training_mode_and_nothing_is_written():
    source = load_timm(request(SMALL))
    model = library_copy(source, SMALL).train()
    before = {name: value.clone() for name, value in {**source.params, **source.buffers}.items()}
    x = torch.rand(4, 3, 64, 64)
    expected = model(source.normalise(x))
    torch.testing.assert_close(source.logits(x, norm=batch()), expected, atol=5e-5, rtol=1e-3)
    stats = source.forward(x, norm=track(0.1)).stats
    trained = {name: value for name, value in model.named_buffers() if "running_" in name}
    assert set(stats) == set(trained)
    after = {**source.params, **source.buffers}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_random_weights_come_from_the_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (load_timm(request(SMALL, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert not first.pretrained


def test_float64_is_float64_throughout():
    source = load_timm(request(SMALL, dtype=torch.float64))
    assert source.logits(torch.rand(1, 3, 64, 64, dtype=torch.float64)).dtype == torch.float64


def test_class_indices_choose_and_order_the_models_own_outputs():
    chosen = (7, 3, 999)
    source = load_timm(request("resnet18", ("x", "y", "z"), class_indices=chosen))
    model = library_copy(source, "resnet18", classes=1000)
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(
        source.logits(x), model(source.normalise(x))[:, list(chosen)], atol=2e-5, rtol=1e-4
    )
    assert source.head_weight().shape == (3, 512)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_are_read_from_the_hub_cache_without_a_network(cache, name):
    tensors = timm.create_model(SMALL).state_dict()
    put_in_cache(cache, f"timm/{SMALL_WEIGHTS}", name, tensors)
    source = load_timm(thousand(SMALL_WEIGHTS))
    assert source.pretrained
    assert all(torch.equal(source.params[key], tensors[key]) for key in source.params)
    assert "state_dict" not in source._network.inner().pretrained_cfg  # no second copy is kept


def test_weights_that_cannot_be_fetched_say_where_from_and_what_to_do(cache):
    with pytest.raises(
        BadInputError, match=rf"huggingface.co/timm/{SMALL_WEIGHTS}.*HF_HOME.*pretrained=False"
    ):
        load_timm(thousand(SMALL_WEIGHTS))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_of_ones_own_are_read_from_a_file(tmp_path, suffix):
    tensors = timm.create_model(SMALL, num_classes=10).state_dict()
    path = tmp_path / f"mine.{suffix}"
    if suffix == "pth":
        torch.save(
            {"state_dict": {f"module.{key}": value for key, value in tensors.items()}, "epoch": 3}, path
        )
    else:
        save_file(tensors, path)
    source = load_timm(request(f"{SMALL}:{path}", pretrained=True))
    assert all(torch.equal(source.params[key], tensors[key]) for key in source.params)
    with pytest.raises(IncompatibleError, match=r"\d+ outputs but the dataset has \d+ classes"):
        load_timm(request(f"{SMALL}:{path}", ("one", "two"), pretrained=True))


class Surprise:
    """An object whose unpickling runs code."""

    def __reduce__(self):
        return (print, ("ran",))


def test_files_that_are_not_plain_weights_are_refused(tmp_path, capsys):
    evil, broken = tmp_path / "evil.pth", tmp_path / "broken.safetensors"
    torch.save({"state_dict": Surprise()}, evil)
    broken.write_bytes(b"nothing")
    for path, match in ((evil, "tensors alone"), (broken, "broken"), (tmp_path / "no.pth", "does not exist")):
        with pytest.raises(BadInputError, match=match):
            load_timm(request(f"{SMALL}:{path}", pretrained=True))
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rest", "error", "match"),
    [
        ("resnet81", UnknownNameError, "resnet18"),
        (f"{SMALL}.lamb_in2k", UnknownNameError, "lamb_in1k"),
        ("deit_tiny_distilled_patch16_224", IncompatibleError, "not one linear layer"),
        ("resnetv2_50", IncompatibleError, "linear"),
        ("volo_d1_224", IncompatibleError, "several heads"),  # its logits take in those of its patches
        ("resnet14t:missing.pth", BadInputError, "does not exist"),
    ],
)
def test_bad_names_get_one_clear_sentence(rest, error, match):
    with pytest.raises(error, match=match):
        load_timm(request(rest, pretrained=":" in rest))


def test_an_architecture_without_trained_weights_says_so():
    with pytest.raises(BadInputError, match="no trained weights"):
        load_timm(thousand("darknet17"))


def test_models_of_other_classes_are_refused(cache):
    put_in_cache(cache, f"timm/{SMALL_WEIGHTS}", "model.safetensors", timm.create_model(SMALL).state_dict())
    with pytest.raises(IncompatibleError, match="1000 outputs"):
        load_timm(request(SMALL_WEIGHTS, pretrained=True))
    with pytest.raises(IncompatibleError, match="labels 0 to 1000"):
        load_timm(request(SMALL_WEIGHTS, ("x", "y"), pretrained=True, class_indices=(0, 1000)))
