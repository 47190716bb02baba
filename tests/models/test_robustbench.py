# SPDX-License-Identifier: Apache-2.0
import copy
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import BadInputError, IncompatibleError, UnknownNameError
from tta_bench.models import robustbench_models
from tta_bench.models.loading import ModelRequest
from tta_bench.models.robustbench_models import (
    catalogue,
    declared_preprocess,
    import_zoo,
    load_robustbench,
    resolve,
    unwrap,
)
from tta_bench.norms import batch

needs_extra = pytest.mark.skipif(find_spec("robustbench") is None, reason="needs the extra 'robustbench'")
SMALL = "cifar10/corruptions/Hendrycks2020AugMix_WRN"
TEN, HUNDRED = tuple(map(str, range(10))), tuple(map(str, range(100)))


def request(rest, names=TEN, **options):
    return ModelRequest(
        name=f"robustbench/{rest}", rest=rest, class_names=names, **{"pretrained": False, **options}
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of RobustBench's weights, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*_):
        raise OSError("no network")

    monkeypatch.setattr(import_zoo("x"), "download_gdrive_new", refuse)
    place = tmp_path / "hub" / "robustbench" / "cifar10" / "corruptions"
    place.mkdir(parents=True)
    return place


def library_model(rest):
    return catalogue(import_zoo("x"))[tuple(rest.split("/"))]["model"]()


@needs_extra
def test_logits_equal_the_librarys_own():
    source, model = load_robustbench(request(SMALL)), library_model(SMALL)
    model.load_state_dict({**source.params, **source.buffers})
    x = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(source.logits(x), model.eval()(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(source.head(source.encode(x)), source.logits(x))
    torch.testing.assert_close(source.logits(x, norm=batch()), model.train()(x), atol=1e-4, rtol=1e-3)
    assert source.image_shape == (3, 32, 32)
    assert source.mean.tolist() == [0.0] * 3  # this network normalises within itself


@needs_extra
def test_a_bare_name_follows_from_the_classes():
    known = catalogue(import_zoo("x"))
    assert resolve(known, request("Standard")) == ("cifar10", "corruptions", "Standard")
    assert resolve(known, request("Hendrycks2020AugMix_WRN", HUNDRED))[0] == "cifar100"
    assert resolve(known, request("Hendrycks2020AugMix", ("a", "b"), class_indices=(3, 640)))[0] == "imagenet"
    assert resolve(known, request("cifar10/Linf/Standard")) == ("cifar10", "Linf", "Standard")


def test_a_name_that_stands_for_several_models_is_refused():
    known = {("cifar10", threat, "Twice"): {} for threat in ("Linf", "L2")}
    with pytest.raises(
        BadInputError, match=r"'robustbench/cifar10/Linf/Twice' or 'robustbench/cifar10/L2/Twice'"
    ):
        resolve(known, request("Twice"))


@needs_extra
@pytest.mark.parametrize(
    ("rest", "error", "match"),
    [
        ("Standart", UnknownNameError, "Standard"),
        ("cifar10/corruption/Standard", UnknownNameError, "cifar10/corruptions/Standard"),
        ("cifar100/corruptions/Hendrycks2020AugMix_WRN", IncompatibleError, "100 outputs"),
    ],
)
def test_bad_names_get_one_clear_sentence(rest, error, match):
    with pytest.raises(error, match=match):
        load_robustbench(request(rest))


class Ensemble(nn.Module):
    """Two members whose probabilities are averaged: no linear layer gives the logits."""

    def __init__(self):
        super().__init__()
        self.members = nn.ModuleList(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)) for _ in range(2))

    def forward(self, x):
        return torch.stack([member(x).softmax(-1) for member in self.members]).mean(0).log()


@needs_extra
def test_an_ensemble_is_refused(monkeypatch):
    zoo = import_zoo("x")
    entry = copy.copy(catalogue(zoo)[tuple(SMALL.split("/"))]) | {"model": Ensemble}
    monkeypatch.setattr(
        robustbench_models, "catalogue", lambda _: {("cifar10", "corruptions", "Pair"): entry}
    )
    with pytest.raises(IncompatibleError, match="several heads"):
        load_robustbench(request("Pair"))


@needs_extra
def test_the_normalisation_in_front_becomes_the_source_models_own():
    import_zoo("x")
    from robustbench.model_zoo.architectures.utils_architectures import normalize_model

    inner = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    wrapped = normalize_model(inner, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    mean, std, model = unwrap(wrapped)
    x = torch.rand(2, 3, 2, 2)
    normalised = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(model(normalised), wrapped(x))
    assert model is inner
    assert unwrap(inner) == ((0.0,) * 3, (1.0,) * 3, inner)


@needs_extra
def test_weights_are_read_from_torch_home(folder):
    with pytest.raises(BadInputError, match=r"RobustBench's storage.*TORCH_HOME.*pretrained=False"):
        load_robustbench(request(SMALL, pretrained=True))
    tensors = library_model(SMALL).state_dict()
    saved = {
        "state_dict": {f"module.{key}": value for key, value in tensors.items()},
        "best_acc": np.float64(0.9),
    }
    torch.save(saved, folder / "Hendrycks2020AugMix_WRN.pt")
    source = load_robustbench(request(SMALL, pretrained=True))
    assert source.pretrained
    assert all(torch.equal(source.params[key], tensors[key]) for key in source.params)


class Surprise:
    """An object whose unpickling runs code."""

    def __reduce__(self):
        return (print, ("ran",))


@needs_extra
def test_a_checkpoint_that_runs_code_is_refused(folder, capsys):
    torch.save({"state_dict": {}, "extra": Surprise()}, folder / "Hendrycks2020AugMix_WRN.pt")
    with pytest.raises(BadInputError, match="more than tensors"):
        load_robustbench(request(SMALL, pretrained=True))
    assert "ran" not in capsys.readouterr().out


@needs_extra
@pytest.mark.parametrize("content", [b"", b"epoch,loss\n", b"PK\x03\x04cut"])
def test_a_damaged_checkpoint_is_one_sentence(folder, content):
    (folder / "Hendrycks2020AugMix_WRN.pt").write_bytes(content)
    with pytest.raises(BadInputError, match=r"^the checkpoint of .*(damaged|more than tensors)") as caught:
        load_robustbench(request(SMALL, pretrained=True))
    assert "\n" not in str(caught.value)


@needs_extra
def test_models_that_robustbench_gives_to_timm_have_random_weights_too():
    rest = "cifar10/Linf/Debenedetti2022Light_XCiT-S12"
    name = robustbench_models.timm_name(*rest.split("/"))
    assert name == "debenedetti2022light_xcit_s12_cifar10_linf"
    source = load_robustbench(request(rest))
    assert source.num_classes == 10
    assert torch.isfinite(source.logits(torch.rand(1, 3, 32, 32))).all()


@needs_extra
def test_the_card_says_where_the_zoo_and_its_evaluation_differ(monkeypatch):
    known = {key: entry for key, entry in catalogue(import_zoo("x")).items() if key[0] == "imagenet"}
    both = [
        key
        for key, entry in known.items()
        if entry.get("preprocessing") and robustbench_models.timm_name(*key)
    ]
    assert len(both) == 3
    monkeypatch.setattr(robustbench_models, "_build", lambda *_: tiny())
    found = load_robustbench(request("/".join(both[0]), tuple(map(str, range(1000)))))
    assert "as RobustBench's zoo declares it; its own evaluation takes timm's" in found.preprocess.describe()
    other = next(key for key in known if key not in both)
    found = load_robustbench(request("/".join(other), tuple(map(str, range(1000)))))
    assert "evaluation" not in found.preprocess.describe()


def tiny():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))
    net.default_cfg = {}
    return net.eval()


@needs_extra
def test_random_weights_come_from_the_seed_alone():
    state = torch.get_rng_state()
    first, again, other = (load_robustbench(request(SMALL, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256


@needs_extra
@pytest.mark.parametrize("size", [(320, 300), (260, 400)])
@pytest.mark.parametrize("declared", sorted(robustbench_models.PREPROCESSINGS))
def test_images_are_prepared_as_the_zoo_prepares_them(declared, size):
    import_zoo("x")
    from robustbench.data import PREPROCESSINGS

    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = PREPROCESSINGS[declared](Image.fromarray(pixels))
    found = declared_preprocess(declared, "imagenet", nn.Identity(), "x")(Image.fromarray(pixels))
    assert torch.equal(found, (expected * 255).round().to(torch.uint8))


@needs_extra
def test_every_preparation_of_the_zoo_is_known():
    named = {entry.get("preprocessing") for entry in catalogue(import_zoo("x")).values()}
    assert named <= {None, *robustbench_models.PREPROCESSINGS}


def test_what_no_entry_says_follows_from_the_dataset_or_from_timm():
    plain, timms = nn.Identity(), nn.Identity()
    timms.default_cfg = {"input_size": (3, 224, 224), "crop_pct": 1.0, "interpolation": "bicubic"}
    assert declared_preprocess(None, "cifar100", plain, "x") == Preprocess((32, 32), 32)
    assert declared_preprocess(None, "imagenet", timms, "x") == Preprocess((224, 224), 224, "bicubic")
    for declared, dataset in ((None, "imagenet"), ("Crop999", "cifar10"), ("Crop999", "imagenet")):
        with pytest.raises(IncompatibleError, match=r"the images of 'x' by .*Crop288, got (None|'Crop999')"):
            declared_preprocess(declared, dataset, plain, "x")


@needs_extra
def test_a_model_carries_its_own_preparation():
    source = load_robustbench(request("imagenet/Linf/Salman2020Do_R18", tuple(map(str, range(1000)))))
    assert source.preprocess == Preprocess((224, 224), 256)


def test_a_missing_extra_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(robustbench_models, "find_spec", lambda name: None)
    with pytest.raises(BadInputError, match=r"pip install 'tta-bench\[robustbench\]'"):
        load_robustbench(request(SMALL))
