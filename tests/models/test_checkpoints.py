# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as training scripts leave them, and files that are none."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tta_bench.errors import BadInputError
from tta_bench.models.checkpoints import fill, read_weights
from tta_bench.models.loading import file_of, load_model


def net(seed=0, classes=2):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, classes))


@pytest.fixture(autouse=True)
def _state():
    before = torch.get_rng_state()
    yield
    torch.set_rng_state(before)


def prefixed(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}


W = net(1).state_dict()
OTHER = net(2).state_dict()
WAYS = {
    "bare": W,
    "state_dict": {"state_dict": W, "epoch": 3},
    "model_state_dict": {
        "model_state_dict": W,
        "optimizer": {"state": {0: {"m": torch.ones(1)}}, "param_groups": []},
    },
    "model": {"model": W, "args": None},
    "net": {"net": W, "acc": 91.2, "epoch": 7},
    "ema before model": {"model": OTHER, "ema": W},
    "ema of timm": {"state_dict": OTHER, "state_dict_ema": W},
    "nested": {"model": {"state_dict": W}, "epoch": 1},
    "a name of one's own": {"best_weights": W, "epoch": 1},
    "module.": prefixed("module.", W),
    "_orig_mod.": prefixed("_orig_mod.", W),
    "module._orig_mod.": {"state_dict": prefixed("module._orig_mod.", W)},
    "_orig_mod.module.": prefixed("_orig_mod.module.", W),
    "a compiled part": {name.replace("0.", "0._orig_mod.", 1): value for name, value in W.items()},
    "lightning": {"state_dict": prefixed("model.", W), "pytorch-lightning_version": "2.4", "loops": {}},
    "lightning and compiled": {"state_dict": prefixed("model._orig_mod.", W)},
    "lightning with a loss": {"state_dict": {**prefixed("net.", W), "loss.weight": torch.ones(2)}},
    "averaged": {"n_averaged": torch.tensor(5), **prefixed("module.", W)},
    "beside scalars": {**W, "epoch": 3, "best": 0.9, "name": "x"},
    "deep prefix": prefixed("student.backbone.", W),
    "without counters": {name: value for name, value in W.items() if not name.endswith("tracked")},
}


@pytest.mark.parametrize("way", WAYS)
def test_common_wrappers_are_taken_off(tmp_path, way):
    torch.save(WAYS[way], tmp_path / "w.pth")
    model = net(3)
    fill(model, tmp_path / "w.pth", "net")
    for name, value in model.state_dict().items():
        assert torch.equal(value, W[name]), name


@pytest.mark.parametrize("suffix", ["safetensors", "bin", "pth"])
def test_safetensors_are_known_by_their_content(tmp_path, suffix):
    save_file(prefixed("module._orig_mod.", W), tmp_path / f"w.{suffix}")
    model = net(3)
    fill(model, tmp_path / f"w.{suffix}", "net")
    assert torch.equal(model[0].weight, W["0.weight"])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({**W, "0.extra": torch.ones(1)}, r"1 unexpected: 0\.extra"),
        ({name: value for name, value in W.items() if name != "0.bias"}, r"1 missing: 0\.bias"),
        (net(1, classes=5).state_dict(), r"2 of another shape: 3\.weight \(5, 16\) instead of \(2, 16\)"),
        (prefixed("a.", W) | prefixed("b.", OTHER), r"its names fit behind a\. and b\."),
        ({"foo.weight": torch.ones(2)}, "8 missing: .*; 1 unexpected"),
    ],
)
def test_what_does_not_fit_is_listed(tmp_path, content, sentence):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(BadInputError, match=sentence) as caught:
        fill(net(3), tmp_path / "w.pth", "net")
    assert "\n" not in str(caught.value)
    assert "do not fit the model 'net'" in str(caught.value)


def whole():
    buffer = __import__("io").BytesIO()
    torch.save(W, buffer)
    return buffer.getvalue()


BAD = {
    "empty": (b"", "which is empty"),
    "text": (b"epoch,loss\n1,0.5\n", "it does not begin as one"),
    "page": (b"<!DOCTYPE html><html></html>", "it does not begin as one"),
    "letter": (b"e", "it does not begin as one"),
    "cut": (whole()[:700], "which is not one"),
    "half": (whole()[: len(whole()) // 2], "which is not one"),
    "pickle of a list": (pickle.dumps([1, 2]), "which is not one|got list"),
    "pickle opcodes": (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", "which is not one"),
    "huge string": (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", "which is not one"),
    "pointer file": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "it does not begin as one",
    ),
    "safetensors header": (b"\xff\xff\xff\xff\xff\xff\xff\x7f{", "which is broken"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_that_is_no_checkpoint_is_one_sentence(tmp_path, kind, suffix):
    content, sentence = BAD[kind]
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=sentence if suffix == "pth" else "is broken|is empty") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([W], "got list"),
        ({"epoch": 3}, "a mapping of epoch"),
        ({}, "a mapping of nothing|got dict"),
        ({"teacher": W, "student": OTHER}, r"several \(student, teacher\)"),
        ({101: torch.ones(1)}, "mapping of 101"),
        (torch.ones(3), "got Tensor"),
    ],
)
def test_content_that_is_no_set_of_weights_is_named(tmp_path, content, sentence):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(BadInputError, match=sentence):
        read_weights(tmp_path / "w.pth")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, capsys):
    class Hostile:
        def __reduce__(self):
            return print, ("run",)

    (tmp_path / "w.pth").write_bytes(pickle.dumps({"state_dict": Hostile()}))
    with pytest.raises(BadInputError, match="which is not one"):
        read_weights(tmp_path / "w.pth")
    assert "run" not in capsys.readouterr().out


def test_every_loader_reads_a_compiled_checkpoint(tmp_path):
    import timm

    weights = timm.create_model("test_vit", num_classes=2).state_dict()
    torch.save({"state_dict": prefixed("_orig_mod.", weights)}, tmp_path / "w.pth")
    source = load_model(f"timm/test_vit:{tmp_path / 'w.pth'}", ("a", "b"))
    assert torch.equal(source.params["head.weight"], weights["head.weight"])


def test_the_file_of_weights_is_told_apart_from_a_tag(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").write_bytes(b"x")
    names = {
        "timm/test_vit:w.pth": "w.pth",
        "timm/resnet50:a/b:c.pth": "a/b:c.pth",
        "timm/resnet50:weights": "weights",
        "timm/resnet50.a1_in1k": "",
        "torchvision/resnet50:IMAGENET1K_V1": "",
        "torchvision/resnet50:w.pth": "w.pth",
        "open_clip/ViT-B-16:openai": "",
        "open_clip/ViT-B-16:/x/w.pt": "/x/w.pt",
        "hf-hub:org/repo.v2": "",
        "pocket-bn": "",
    }
    assert {name: file_of(name) for name in names} == names


def test_equal_weights_in_two_places_have_one_hash(tmp_path):
    import timm

    weights = timm.create_model("test_vit", num_classes=2).state_dict()
    torch.save(weights, tmp_path / "one.pth")
    save_file(prefixed("module.", weights), tmp_path / "two.safetensors")
    first, second = (
        load_model(f"timm/test_vit:{tmp_path / f}", ("a", "b")) for f in ("one.pth", "two.safetensors")
    )
    assert first.weights_sha256 == second.weights_sha256
