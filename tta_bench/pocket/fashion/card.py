# SPDX-License-Identifier: Apache-2.0
"""Measure the networks of pocket-fashion, store the counts, and write the model card from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from tta_bench.data.catalogue.mnist import CLOTHES
from tta_bench.data.dataset import Dataset, OpenRequest, Shift
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.images.source import ImageSource
from tta_bench.data.layouts.idx import IdxPair
from tta_bench.data.layouts.reading import Reading
from tta_bench.pocket.fashion.datasets import NOTES, POCKET_FASHION, POCKET_FASHION_C
from tta_bench.pocket.fashion.nets import (
    FASHION_MODELS,
    MEAN,
    STD,
    WEIGHTS,
    FashionName,
    build_fashion,
    fashion_weights,
)
from tta_bench.pocket.nets import normalised
from tta_bench.pocket.training.card import cell, recipe_in, recorded
from tta_bench.pocket.training.evaluate import Score
from tta_bench.spec.whole import write_whole

SEVERITY = 5
_HEAD = f"""# Model card: pocket-fashion-bn, pocket-fashion-gn

Two networks of 78,000 parameters for the ten kinds of clothes of Fashion-MNIST: those of pocket-bn and pocket-gn (3x3
stem of stride 2, three residual blocks of 16, 32 and 64 channels, linear head), the first with BatchNorm, the second
with GroupNorm over 8 groups. They see grey 28x28 images with a border of two zeros, the value in all three channels.

{NOTES}

Weights are float16 safetensors under the licence of this package.

## Training

On the 60,000 training images of the same files, on the CPU.
"""
_TAIL = """
## Remarks

- The 1,000 training images that are shipped were seen in training; the test images were not.
- Hardly any change of light in training, so that shifts of light leave batch statistics something to correct.
- Settings were taken from pocket-bn and fixed before the first run; no checkpoint was chosen by accuracy.
- One seed per model: the difference between the two includes the luck of that seed.
- Training again gives the same weights only with the same torch build and number of threads.
"""


@torch.no_grad()
def score(name: FashionName, images: ImageSource, folder: Path = WEIGHTS, batch: int = 500) -> Score:
    """Return a network's accuracy on the images of one shift.

    Args:
        name: Which network.
        images: The images.
        folder: Where its weights are.
        batch: Images per call.
    """
    net, correct = build_fashion(name, folder=folder), 0
    for start in range(0, len(images), batch):
        positions = range(start, min(start + batch, len(images)))
        x = normalised(images.load(positions, Preprocess((32, 32))).float() / 255, MEAN, STD)
        correct += int((net(x).argmax(1).numpy() == np.asarray(images.labels)[list(positions)]).sum())
    return Score(correct, len(images))


def score_all(name: FashionName, files: Path, folder: Path = WEIGHTS) -> dict[str, Score]:
    """Return a network's accuracy on the shipped images, all test images of the files, and every corruption.

    Args:
        name: Which network.
        files: Folder with the idx files of Fashion-MNIST.
        folder: Where its weights are.
    """
    whole = IdxPair(CLOTHES).open(files, Shift("fashion-mnist"), Reading())
    found = {
        "test": score(name, _opened(POCKET_FASHION), folder),
        "all test images": score(name, whole, folder),
    }
    for shift in POCKET_FASHION_C.shifts((), (SEVERITY,)):
        found[shift.corruption] = score(name, POCKET_FASHION_C.open(OpenRequest(shift)), folder)
    return found


def _opened(dataset: Dataset) -> ImageSource:
    return dataset.open(OpenRequest(dataset.shifts()[0]))


def render_card(folder: Path = WEIGHTS) -> str:
    """Return the text of the model card, from the stored counts and recipes."""
    scores = recorded(folder)
    trained = [name for name in FASHION_MODELS if name in scores]
    recipes = {name: recipe_in(fashion_weights(name, folder)) for name in trained}
    lines = [_HEAD, "| setting | " + " | ".join(trained) + " |", "|---" * (len(trained) + 1) + "|"]
    lines += [
        f"| {key} | " + " | ".join(recipes[name][key] for name in trained) + " |"
        for key in recipes[trained[0]]
    ]
    lines += [
        "",
        "AdamW, linear warm-up, cosine decay to 0, shifts and flips; loss: cross-entropy.",
        "",
        "## Accuracy",
        "",
    ]
    lines += [
        f"In %, with 95 % Wilson intervals over images; corruptions at severity {SEVERITY} on the 2,000 images.",
        "",
    ]
    lines += ["| images | " + " | ".join(trained) + " |", "|---" * (len(trained) + 1) + "|"]
    lines += [
        f"| {split} | " + " | ".join(cell(scores[name][split]) for name in trained) + " |"
        for split in scores[trained[0]]
    ]
    return "\n".join(lines) + "\n" + _TAIL


def record_accuracy(name: FashionName, files: Path, folder: Path = WEIGHTS) -> None:
    """Measure a network's stored weights, and write ``accuracy.json`` and the model card.

    Args:
        name: Which network.
        files: Folder with the idx files of Fashion-MNIST.
        folder: Where its weights are.
    """
    scores = {**recorded(folder), name: score_all(name, files, folder)}
    ordered = {one: scores[one] for one in FASHION_MODELS if one in scores}
    write_whole(folder / "accuracy.json", json.dumps(ordered, indent=1) + "\n")
    write_whole(folder / "MODEL_CARD.md", render_card(folder))
