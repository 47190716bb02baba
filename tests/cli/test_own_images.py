# SPDX-License-Identifier: Apache-2.0
"""My model, my images, through the command line: weights from a file, and folders matched with its outputs."""

import argparse
import csv
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import tta_bench as tb
from tta_bench.data.catalogue.names import imagenet_names, imagenet_wnids

from .own import ARCH, COLOURS, EXPECTS, OUTPUTS, fitted_weights, manifests, write_images

pytestmark = pytest.mark.filterwarnings("always::tta_bench.errors.Caution")


@pytest.fixture(scope="module")
def weights():
    before = torch.get_rng_state()
    made = fitted_weights()
    torch.set_rng_state(before)
    return made


@pytest.fixture
def here(tmp_path, monkeypatch, weights):
    """A working folder with images in ``photos``, weights in ``mine.pt`` and the names of their outputs."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos")
    torch.save({"state_dict": weights}, tmp_path / "mine.pt")
    (tmp_path / "names.txt").write_text("\n".join(OUTPUTS), encoding="utf-8")
    return tmp_path


@pytest.fixture
def accuracy(tta_bench, here):
    """A function that runs the source model and returns its accuracy and what was noted."""

    def run(*options, dataset="photos", model=f"{ARCH}:mine.pt", expects=EXPECTS):
        done = tta_bench(
            *("run", "--method", "source", "--dataset", dataset, "--model", model, "--no-memory"),
            *("--output", "runs", *expects, *options),
        )
        assert done.code == 0, done.err
        with open("runs/leaderboard.csv", encoding="utf-8") as file:
            (row,) = csv.DictReader(file)
        shutil.rmtree("runs")
        return float(row["accuracy"]), done.err

    return run


# Which output stands for which class


def test_folders_find_their_outputs_by_name_whatever_the_order(accuracy):
    assert accuracy("--class-names", "names.txt") == (1.0, "")


def test_an_order_that_nothing_confirms_is_said(accuracy):
    found, noted = accuracy()
    assert found < 0.6  # cat alone stands where the folders have it
    said = " ".join(noted.split())
    assert f"nothing says what the 4 outputs of '{ARCH}' are" in said
    assert "in this order: ant, bee, cat, dog" in said
    assert "with --class-names FILE" in said


def test_names_that_the_checkpoint_holds_are_used(accuracy, here, weights):
    torch.save(
        {"state_dict": weights, "class_to_idx": {n: i for i, n in enumerate(OUTPUTS)}}, here / "mine.pt"
    )
    assert accuracy() == (1.0, "")


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(OUTPUTS),
        json.dumps({str(i): name for i, name in enumerate(OUTPUTS)}),
        json.dumps({name: i for i, name in enumerate(OUTPUTS)}),
    ],
)
def test_class_names_may_be_json(accuracy, here, content):
    (here / "names.json").write_text(content, encoding="utf-8")
    assert accuracy("--class-names", "names.json")[0] == 1.0


def test_folders_named_by_number_are_outputs(accuracy, here):
    write_images(here / "numbered", {name: str(OUTPUTS.index(name)) for name in COLOURS})
    assert accuracy(dataset="./numbered") == (1.0, "")


def test_a_map_gives_each_folder_its_output(accuracy, here):
    lines = ["folder,output", *(f"{name},{OUTPUTS.index(name)}" for name in COLOURS)]
    (here / "map.csv").write_text("\n".join(lines), encoding="utf-8")
    assert accuracy("--class-map", "map.csv")[0] == 1.0
    write_images(here / "german", {"dog": "hund", "cat": "katze", "bee": "biene", "ant": "ameise"})
    (here / "map.json").write_text(json.dumps({"hund": "dog", "katze": 2, "biene": [3], "ameise": "ant"}))
    assert accuracy("--class-map", "map.json", "--class-names", "names.txt", dataset="german/")[0] == 1.0


def test_fewer_folders_than_outputs_say_what_is_left_out(accuracy, here):
    shutil.rmtree(here / "photos" / "bee")
    found, noted = accuracy("--class-names", "names.txt")
    assert found == 1.0
    assert "its other output is left out" in " ".join(noted.split())
    made = tb.evaluate(
        "source", "photos", models=f"{ARCH}:mine.pt", class_names="names.txt", mean=0.5, std=0.5, input_size=32,
        crop=1, memory=False, output="again",
    )  # fmt: skip
    assert made.summary().accuracy.tolist() == [1.0]
    (manifest,) = manifests(here / "again")
    assert manifest["notes"]["classes"] == "by name: 3 of 4 outputs"
    assert manifest["cell"]["model_options"]["class_names"] == list(OUTPUTS)


REFUSED = {
    "other number": (
        ("photos",),
        [],
        {"bee": None},
        "has 4 outputs and the dataset 3 classes (ant, cat, dog)",
    ),
    "other name": (("photos",), ["--class-names", "names.txt"], {"bee": "bea"}, "is called 'bea'"),
    "near name": (("photos",), ["--class-names", "names.txt"], {"bee": "beee"}, "did you mean 'bee'?"),
    "no line": (("photos",), ["--class-map", "map.csv"], {}, "got none for 'cat'"),
    "no output": (("photos",), ["--class-map", "far.csv"], {}, "0 to 3, or its name, got '9'"),
    "twice": (("photos",), ["--class-map", "twice.csv"], {}, "'ant' and 'cat' are both output 1"),
    "two lines": (("photos",), ["--class-map", "lines.csv"], {}, "maps 'ant' a second time"),
    "names": (("photos",), ["--class-names", "three.txt"], {}, "each of the model's 4 outputs, got 3 names"),
    "no file": (
        ("photos",),
        ["--class-names", "gone.txt"],
        {},
        "--class-names expects a file, got 'gone.txt'",
    ),
    "count": (("photos",), ["--num-classes", "5"], {}, "classifier.weight (4, 256) instead of (5, 256)"),
    "numbers": (("num",), ["--model", "pocket-clip"], {}, "compares images with the names of their classes"),
    "other model": (("photos",), ["--model", "pocket-bn"], {}, "no output of 'pocket-bn' is called 'ant'"),
    "mean": (("photos",), ["--mean", "0.5,0.5"], {}, "--mean must be one number, or 3 for the channels"),
    "std": (("photos",), ["--std", "0"], {}, "--std must be above 0, got 0"),
    "crop": (("photos",), ["--crop", "256"], {}, "--crop must be a share above 0 and up to 1"),
    "size": (("photos",), ["--input-size", "big"], {}, "--input-size must be a whole number, got 'big'"),
    "alone": (
        ("photos",),
        ["--model", "mine.pt"],
        {},
        "as timm/ARCH:mine.pt, torchvision/ARCH:mine.pt or open_clip",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_matched_is_refused_in_one_sentence(case, tta_bench, here):
    (dataset,), options, renamed, sentence = REFUSED[case]
    for name, other in renamed.items():
        if other is None:
            shutil.rmtree(here / "photos" / name)
        else:
            (here / "photos" / name).rename(here / "photos" / other)
    shutil.copytree(here / "photos", here / "num")
    for number, one in enumerate(sorted((here / "num").iterdir())):
        one.rename(one.with_name(str(number)))
    (here / "map.csv").write_text("ant,1\nbee,3\ndog,0")
    (here / "far.csv").write_text("ant,1\nbee,3\ndog,0\ncat,9")
    (here / "twice.csv").write_text("ant,1\nbee,3\ndog,0\ncat,1")
    (here / "lines.csv").write_text("ant,1\nant,2")
    (here / "three.txt").write_text("ant\nbee\ncat")
    model = () if "--model" in options else ("--model", f"{ARCH}:mine.pt")
    done = tta_bench("run", "--method", "source", "--dataset", dataset, *model, *options)
    assert done.code == 2
    assert sentence in done.err
    assert done.err.count("\n") == 1 or "note:" in done.err
    assert "Traceback" not in done.err


# Files of weights


@pytest.mark.parametrize("kind", ["training script", "compiled", "lightning", "safetensors", "average"])
def test_weights_are_read_as_training_scripts_leave_them(kind, accuracy, here, weights):
    said = {"args": argparse.Namespace(lr=0.1, data=here), "best_acc1": np.float64(98.2), "epoch": 3}
    if kind == "safetensors":
        save_file(weights, here / "mine.safetensors")
        found = accuracy("--class-names", "names.txt", model=f"{ARCH}:mine.safetensors")
    else:
        prefix = {"compiled": "_orig_mod.", "lightning": "model."}.get(kind, "module.")
        tensors = {prefix + name: value for name, value in weights.items()}
        other = {name: torch.zeros_like(value) for name, value in tensors.items()}
        content = {"state_dict": tensors, **said}
        torch.save({"model": other, "ema": tensors} if kind == "average" else content, here / "mine.pt")
        found = accuracy("--class-names", "names.txt")
    assert found[0] == 1.0


def test_what_the_user_says_of_images_is_on_the_protocol_card(tta_bench, here):
    command = (
        "run",
        "--method",
        "source",
        "--dataset",
        "photos",
        "--model",
        f"{ARCH}:mine.pt",
        "--no-memory",
    )
    assert tta_bench(*command, "--class-names", "names.txt", *EXPECTS).code == 0
    assert tta_bench(*command, "--class-names", "names.txt").code == 0
    cards = {
        one["protocol"]["preprocessing"]: one["protocol"]["normalisation"] for one in manifests(here / "runs")
    }
    assert cards["resize 32 bilinear, centre crop 32x32"] == "mean 0.5 0.5 0.5, std 0.5 0.5 0.5"
    assert len(cards) == 2
    done = tta_bench(
        *command, "--class-names", "names.txt", "--input-size", "48x32", "--crop", "0.8", "--dry-run"
    )
    assert done.code == 0


def test_a_whole_pickled_model_is_named_as_that(tta_bench, here):
    torch.save(torch.nn.Linear(2, 2), here / "whole.pt")
    done = tta_bench("run", "--method", "source", "--dataset", "photos", "--model", f"{ARCH}:whole.pt")
    assert done.code == 2
    assert "it holds an object of torch.nn.modules.linear.Linear, which would run code" in done.err
    assert "save the model's state_dict" in done.err


def test_torchvision_takes_the_number_of_outputs_from_the_file(tta_bench, here):
    from torchvision import models

    model = models.get_model("shufflenet_v2_x0_5", num_classes=4)
    torch.save(model.state_dict(), here / "mine.pt")
    shutil.rmtree(here / "photos" / "bee")
    done = tta_bench(
        *(
            "run",
            "--method",
            "source",
            "--dataset",
            "photos",
            "--model",
            "torchvision/shufflenet_v2_x0_5:mine.pt",
        ),
        *("--class-names", "names.txt", "--input-size", "32", "--no-memory"),
    )
    assert done.code == 0, done.err


# Images of one's own


def write_table(path, rows, columns=("path", "label", "split")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def test_a_table_of_paths_and_labels_is_a_dataset(accuracy, here):
    rows = [
        (f"photos/{name}/{number}.png", name, "val" if number < 2 else "test")
        for name in COLOURS
        for number in range(6)
    ]
    write_table(here / "labels.csv", rows)
    assert accuracy("--class-names", "names.txt", dataset="labels.csv")[0] == 1.0
    assert accuracy("--class-names", "names.txt", dataset="folder:./labels.csv:val")[0] == 1.0
    numbered = [(path, OUTPUTS.index(label), split) for path, label, split in rows]
    write_table(here / "labels.csv", numbered)
    found = tb.evaluate(
        "source", "labels.csv", models="pocket-clip", class_names=OUTPUTS, output="runs2", memory=False
    )
    assert set(found.summary().dataset) == {"folder:labels.csv:test"}
    assert found.summary().images.tolist() == [16]
    assert accuracy(dataset="labels.csv:test:brightness:1")[0] > 0.9


WRONG = {
    "no column": ([("photos/ant/0.png", "ant")], ("file", "label"), "must have the column 'path'"),
    "no label": ([("photos/ant/0.png", "")], ("path", "label"), "line 2 of labels.csv must have a path and a label"),
    "gone": ([("photos/ant/99.png", "ant"), ("photos/bee/0.png", "bee")], ("path", "label"),
             "1 of 2 images in labels.csv are not there, 'photos/ant/99.png' in line 2"),
    "twice": ([("photos/ant/0.png", "ant"), ("photos/./ant/0.png", "bee")], ("path", "label"),
              "in lines 2 and 3"),
    "one class": ([("photos/ant/0.png", "ant")], ("path", "label"), "two classes at least, got ant"),
    "splits": ([("photos/ant/0.png", "ant", "a"), ("photos/bee/0.png", "bee", "b")], ("path", "label", "split"),
               "has the splits a, b; name one as folder:labels.csv:a"),
    "no image": ([("names.txt", "ant")], ("path", "label"), "must name an image of a format that is read"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_in_a_table_is_named(case, tta_bench, here):
    rows, columns, sentence = WRONG[case]
    write_table(here / "labels.csv", rows, columns)
    done = tta_bench("run", "--method", "source", "--dataset", "labels.csv", "--model", "pocket-clip")
    assert done.code == 2
    assert sentence in done.err


def test_the_folder_above_the_classes_is_refused_by_its_path(tta_bench, here):
    shutil.copytree(here / "photos", here / "all" / "val")
    (here / "all" / "notes").mkdir()
    done = tta_bench("run", "--method", "source", "--dataset", "./all", "--model", "pocket-clip")
    assert done.code == 2
    shutil.rmtree(here / "all" / "notes")
    done = tta_bench("run", "--method", "source", "--dataset", "./all", "--model", "pocket-clip")
    assert done.code == 2
    assert "did you mean folder:all/val?" in done.err
    done = tta_bench("run", "--method", "source", "--dataset", "photoz", "--model", "pocket-clip")
    assert "a folder of images is written ./photoz" in done.err


def test_prompts_may_be_typed(tta_bench, here):
    done = tta_bench(
        *("run", "--method", "source", "--dataset", "photos", "--model", "pocket-clip", "--no-memory"),
        *("--prompts", "a {}.|a photo of a {}."),
    )
    assert done.code == 0, done.err
    (manifest,) = manifests(here / "runs")
    assert manifest["notes"]["prompt_set"] == "a {}.|a photo of a {}."
    refused = tta_bench("run", "--method", "source", "--dataset", "photos", "--prompts", "a {} and {}.")
    assert refused.code == 2
    assert "must have exactly one {}" in refused.err


def test_describe_knows_a_folder_of_images(tta_bench, here):
    assert "4: ant, bee, cat, dog" in tta_bench("describe", "./photos").out


# Photographs and weights of a real network, where they are there


@pytest.mark.parametrize("called", ["wnid", "number", "name"])
def test_photographs_in_folders_find_the_outputs_of_an_imagenet_model(
    called, tta_bench, real_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    names = {"wnid": imagenet_wnids(), "number": [str(i) for i in range(1000)], "name": imagenet_names()}[
        called
    ]
    for path in sorted((real_data / "photographs").glob("imagenet_*.jpg"))[:6]:
        place = tmp_path / "photos" / names[int(path.stem.rpartition("_")[2])]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    done = tta_bench(
        *("run", "--method", "source", "--dataset", "./photos", "--output", "runs", "--no-memory"),
        *("--model", f"timm/tf_efficientnet_lite0:{real_data / 'efficientnet_lite0_timm.safetensors'}"),
    )
    assert done.code == 0, done.err
    assert f"are outputs of 'timm/tf_efficientnet_lite0' by {called}" in " ".join(done.err.split())
    frame = tb.load("runs").frame()
    assert frame.correct.mean() > 0.8
