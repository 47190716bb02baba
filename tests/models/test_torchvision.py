# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from tta_bench.errors import BadInputError, IncompatibleError, UnknownNameError
from tta_bench.models.loading import ModelRequest
from tta_bench.models.torchvision_models import load_torchvision
from tta_bench.norms import batch

SMALL = "shufflenet_v2_x0_5"
TEN = tuple("abcdefghij")


def request(rest, names=TEN, **options):
    return ModelRequest(
        name=f"torchvision/{rest}", rest=rest, class_names=names, **{"pretrained": False, **options}
    )


def photo(width=301, height=260):
    y, x = np.mgrid[0:height, 0:width]
    grain = np.random.default_rng(0).normal(0, 20, (height, width, 3))
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], -1)
    return Image.fromarray(np.clip(128 + 80 * waves + grain, 0, 255).astype(np.uint8))


def library_copy(source, architecture, classes=10, **options):
    model = models.get_model(architecture, num_classes=classes, **options)
    model.load_state_dict({**source.params, **source.buffers})
    return model.eval()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder of downloaded weights, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    "architecture", ["resnet18", SMALL, "mobilenet_v3_small", "regnet_y_400mf", "swin_v2_t"]
)
def test_logits_equal_the_librarys_own_with_its_own_preprocessing(architecture):
    source = load_torchvision(request(architecture))
    model = library_copy(source, architecture)
    transform = models.get_model_weights(architecture).DEFAULT.transforms()
    images = photo(), photo(200, 333)
    with torch.no_grad():
        expected = model(torch.stack([transform(image) for image in images]))
        found = source.forward(torch.stack([source.preprocess(image) for image in images]) / 255)
    torch.testing.assert_close(found.logits, expected, atol=5e-5, rtol=1e-4)
    torch.testing.assert_close(source.head(found.features), expected, atol=5e-5, rtol=1e-4)


def test_preprocessing_belongs_to_the_weights_and_not_to_the_architecture():
    first, second = (load_torchvision(request(f"resnet50:IMAGENET1K_V{version}")) for version in (1, 2))
    assert (first.preprocess.resize, second.preprocess.resize) == (256, 232)
    assert load_torchvision(request("resnet50")).preprocess == second.preprocess  # V2 is the default


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_off(architecture):
    source = load_torchvision(request(architecture))
    assert not [name for name in source.params if "aux" in name.lower()]
    x = torch.rand(1, *source.image_shape)
    model = library_copy(source, architecture, aux_logits=False, init_weights=True)
    torch.testing.assert_close(source.logits(x), model(source.normalise(x)), atol=2e-5, rtol=1e-4)


def test_batch_statistics_equal_training_mode():
    source = load_torchvision(request("resnet18"))
    model = library_copy(source, "resnet18").train()
    x = torch.rand(4, 3, 64, 64)
    expected = model(source.normalise(x))
    torch.testing.assert_close(source.logits(x, norm=batch()), expected, atol=5e-5, rtol=1e-3)
    assert not torch.equal(
        model.bn1.running_mean, source.buffers["bn1.running_mean"]
    )  # the library wrote, we not


def test_random_weights_come_from_the_seed_alone():
    state = torch.get_rng_state()
    first, again, other = (load_torchvision(request(SMALL, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256


@pytest.mark.parametrize("tag", ["", ":IMAGENET1K_V1", ":DEFAULT"])
def test_weights_are_read_from_torch_home(hub, tag):
    tensors = models.get_model(SMALL, weights=None).state_dict()
    weights = models.get_model_weights(SMALL).IMAGENET1K_V1
    torch.save(tensors, hub / Path(urlsplit(weights.url).path).name)
    source = load_torchvision(request(SMALL + tag, tuple(map(str, range(1000))), pretrained=True))
    assert source.pretrained
    assert all(torch.equal(source.params[key], tensors[key]) for key in source.params)
    with pytest.raises(IncompatibleError, match="1000 outputs"):
        load_torchvision(request(SMALL + tag, pretrained=True))


def test_weights_of_other_shapes_are_refused(hub):
    weights = models.get_model_weights(SMALL).IMAGENET1K_V1
    torch.save(models.resnet18().state_dict(), hub / Path(urlsplit(weights.url).path).name)
    with pytest.raises(BadInputError, match="do not fit"):
        load_torchvision(request(SMALL, pretrained=True))


def test_weights_that_cannot_be_fetched_say_where_from_and_what_to_do(hub):
    with pytest.raises(BadInputError, match=r"shufflenetv2_x0.5-\w+\.pth.*TORCH_HOME.*pretrained=False"):
        load_torchvision(request(SMALL, pretrained=True))


def test_weights_of_ones_own_are_read_from_a_file(tmp_path):
    tensors = models.get_model(SMALL, num_classes=10).state_dict()
    torch.save({"model": tensors}, tmp_path / "mine.pth")
    source = load_torchvision(request(f"{SMALL}:{tmp_path / 'mine.pth'}", pretrained=True))
    assert all(torch.equal(source.params[key], tensors[key]) for key in source.params)


@pytest.mark.parametrize(
    ("rest", "error", "match"),
    [
        ("resnet51", UnknownNameError, "resnet50"),
        ("resnet50:IMAGENET1K_V3", UnknownNameError, "IMAGENET1K_V2"),
        ("fcn_resnet50", UnknownNameError, "resnet50"),
        ("squeezenet1_1", IncompatibleError, "no linear classifier"),
    ],
)
def test_bad_names_get_one_clear_sentence(rest, error, match):
    with pytest.raises(error, match=match):
        load_torchvision(request(rest))
