# SPDX-License-Identifier: Apache-2.0
"""The real images inside the package and the networks trained on them."""

import gzip
import json
from dataclasses import replace
from functools import cache
from hashlib import sha256

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional as F

from tta_bench.data.corruptions import corrupt
from tta_bench.data.dataset import OpenRequest, Shift, find_dataset
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import BadInputError, IncompatibleError, UnknownNameError
from tta_bench.models.loading import load_model
from tta_bench.pocket.fashion import card, nets, subset, train
from tta_bench.pocket.fashion.datasets import DATA, POCKET_FASHION, POCKET_FASHION_C, open_fashion_training
from tta_bench.pocket.nets import normalised

AS_IS = Preprocess((32, 32))


def opened(dataset=POCKET_FASHION, *shift, **more):
    return dataset.open(OpenRequest(Shift(dataset.name, *shift), **more))


@cache
def pixels():
    return opened().load(range(2000), AS_IS)


def raw(name):
    """The bytes of a shipped file after its header, read without the reader under test."""
    content = gzip.decompress((DATA / name).read_bytes())
    return np.frombuffer(content[16 if "images" in name else 8 :], np.uint8)


# ---- the images


def test_two_thousand_balanced_images_are_shipped():
    images = opened()
    grey = raw("t10k-images-idx3-ubyte.gz").reshape(2000, 28, 28)
    assert (pixels()[:, 1, 2:30, 2:30].numpy() == grey).all()
    assert (images.labels == raw("t10k-labels-idx1-ubyte.gz")).all()
    assert np.bincount(images.labels).tolist() == [200] * 10
    # In rounds over the classes, each in an order of its own.
    rounds = images.labels.reshape(-1, 10)
    assert (np.sort(rounds, 1) == np.arange(10)).all()
    assert len({tuple(row) for row in rounds.tolist()}) > 190


def test_a_thousand_training_images_are_shipped_and_none_is_a_test_image():
    source = POCKET_FASHION_C.source_split()
    assert np.bincount(source.labels).tolist() == [100] * 10
    ours = {row.tobytes() for row in source.load(range(1000), AS_IS).numpy()}
    assert len(ours) > 990
    assert not ours & {row.tobytes() for row in pixels().numpy()}


def test_corruptions_are_those_of_32_pixels():
    found = opened(POCKET_FASHION_C, "snow", 4, seed=3)
    expected = corrupt(pixels()[[7, 0]], "snow", 4, 3, ids=["00007", "00000"], scale="cifar")
    assert torch.equal(found.load([7, 0], AS_IS), expected)
    assert found.origin.startswith("generated from pocket-fashion")
    assert opened().origin == "as distributed"
    assert len(POCKET_FASHION_C.shifts()) == 15
    with pytest.raises(UnknownNameError, match="data option"):
        opened(POCKET_FASHION_C, "snow", 4, options={"elastik": True})


def test_the_licence_lies_beside_the_images_and_the_split_is_declared():
    assert "Zalando" in (DATA / "LICENSE").read_text(encoding="utf-8")
    for name in ("pocket-fashion", "pocket-fashion-c"):
        dataset = find_dataset(name)[0]
        assert (dataset.licence, dataset.demonstration) == ("MIT", False)
        assert "not the official one" in dataset.notes
        assert dataset.source_split is open_fashion_training


def test_the_shipped_files_stay_small():
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 1_400_000
    assert all(path.stat().st_size < 200_000 for path in nets.WEIGHTS.iterdir())


def test_the_script_chooses_the_shipped_images(real_data, tmp_path):
    subset.write_subset(real_data / "fashion-mnist", tmp_path)
    for path in DATA.glob("*.gz"):
        assert gzip.decompress((tmp_path / path.name).read_bytes()) == gzip.decompress(path.read_bytes())


def test_the_script_prints_sums_and_refuses_too_few_images(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(subset, "PER_CLASS", {"t10k": 3, "train": 2})
    subset.main(["--files", str(DATA), "--out", str(tmp_path)])
    printed = dict(reversed(line.split()) for line in capsys.readouterr().out.splitlines())
    assert printed == {path.name: sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    assert len(printed) == 4
    monkeypatch.setattr(subset, "PER_CLASS", {"t10k": 201})
    with pytest.raises(BadInputError, match="class 0 must have 201 images, got 200"):
        subset.write_subset(DATA, tmp_path)


# ---- the networks


@pytest.mark.parametrize("name", nets.FASHION_MODELS)
def test_the_networks_reach_88_percent_and_their_recorded_counts(name):
    found, recorded = card.score(name, opened()), card.recorded(nets.WEIGHTS)[name]
    # Another build of torch may round a near-tie the other way.
    assert abs(found.correct - recorded["test"].correct) <= 4
    assert (found.images, recorded["all test images"].images) == (2000, 10000)
    assert min(recorded["test"].accuracy, recorded["all test images"].accuracy) >= 0.88


@pytest.mark.parametrize("name", nets.FASHION_MODELS)
def test_source_models_are_the_shipped_networks_behind_their_normalisation(name):
    source = load_model(name, POCKET_FASHION.class_names)
    net, x = nets.build_fashion(name), pixels()[:8].float() / 255
    torch.testing.assert_close(source.logits(x), net((x - 0.22) / 0.33), atol=1e-4, rtol=1e-4)
    kind = "batch" if name.endswith("bn") else "group"
    assert source.normalisation((kind,)) == source.normalisation()
    theirs = timm.create_model(name.replace("-", "_"), pretrained=True).eval()
    assert torch.equal(theirs(normalised(x, nets.MEAN, nets.STD)), net(normalised(x, nets.MEAN, nets.STD)))
    with pytest.raises(BadInputError, match="leave out 'big'"):
        load_model(f"{name}/big", POCKET_FASHION.class_names)
    with pytest.raises(IncompatibleError, match="10 outputs"):
        load_model(name, ("a", "b"))


def test_random_weights_follow_the_seed():
    one, two, other = (
        nets.build_fashion("pocket-fashion-gn", pretrained=False, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(one.fc.weight, two.fc.weight)
    assert not torch.equal(one.fc.weight, other.fc.weight)
    with pytest.raises(UnknownNameError, match="did you mean 'pocket-fashion-gn'"):
        nets.build_fashion("pocket-fashion-gm")


def test_batch_statistics_help_when_contrast_is_lost():
    images = opened(POCKET_FASHION_C, "contrast", 5)
    x, labels = images.load(range(200), AS_IS).float() / 255, torch.from_numpy(images.labels[:200])
    net = nets.build_fashion("pocket-fashion-bn")
    with torch.no_grad():
        source = (net(normalised(x, nets.MEAN, nets.STD)).argmax(1) == labels).double().mean()
        adapted = (net.train()(normalised(x, nets.MEAN, nets.STD)).argmax(1) == labels).double().mean()
    assert adapted > source + 0.1


def test_the_model_card_is_written_from_the_recorded_counts():
    assert (nets.WEIGHTS / "MODEL_CARD.md").read_text() == card.render_card()
    stored = json.loads((nets.WEIGHTS / "accuracy.json").read_text())
    assert set(stored) == set(nets.FASHION_MODELS)
    assert len(stored["pocket-fashion-bn"]) == 2 + 15


# ---- training


def test_training_reads_all_images_and_their_labels():
    images, labels = train.read_split(DATA, "t10k")
    assert torch.equal(images, pixels())
    assert labels.tolist() == opened().labels.tolist()


@pytest.mark.slow
def test_the_command_trains_saves_and_writes_the_card(tmp_path):
    arguments = ["--files", str(DATA), "--steps", "2", "--seed", "5"]
    weights = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        train.main([*arguments, "--model", "pocket-fashion-gn", "--out", str(folder)])
        weights.append((folder / "pocket-fashion-gn.safetensors").read_bytes())
    assert weights[0] == weights[1]
    net = nets.build_fashion("pocket-fashion-gn", folder=tmp_path / "a")
    start = nets.build_fashion("pocket-fashion-gn", pretrained=False, seed=5)
    assert not torch.equal(net.fc.weight, start.fc.weight)
    assert (tmp_path / "a" / "MODEL_CARD.md").read_text() == card.render_card(tmp_path / "a")


def test_a_few_steps_lower_the_loss(tmp_path):
    recipe = replace(train.RECIPES["pocket-fashion-bn"], steps=20, warmup=5, batch=64, shift=0)
    losses = train.train("pocket-fashion-bn", recipe, DATA, tmp_path)
    images, labels = train.read_split(DATA, "train")
    net = nets.build_fashion("pocket-fashion-bn", folder=tmp_path)
    with torch.no_grad():
        after = F.cross_entropy(
            net(normalised(images[:200].float() / 255, nets.MEAN, nets.STD)), labels[:200]
        )
    assert after < losses[0] - 0.5
    assert sum(losses[-5:]) / 5 < losses[0] - 0.5
