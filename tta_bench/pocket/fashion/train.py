# SPDX-License-Identifier: Apache-2.0
"""Train the networks of pocket-fashion on Fashion-MNIST, and write weights, measured accuracy and model card.

Run ``python -m tta_bench.pocket.fashion.train --files FOLDER --out DIR`` with the folder of the four idx files.
Nothing is chosen by accuracy: step counts are fixed.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tta_bench.data.catalogue.mnist import CLOTHES
from tta_bench.data.dataset import Shift
from tta_bench.data.layouts.idx import IdxPair
from tta_bench.pocket.fashion.card import record_accuracy
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
from tta_bench.pocket.training.fit import Recipe, fit_classifier
from tta_bench.pocket.training.train import save_half

# Hardly any change of light, so that shifts of light leave batch statistics something to correct.
_RECIPE = Recipe(
    steps=2000, lr=6e-3, weight_decay=5e-4, shift=2, grey=0.0, negative=0.0, contrast=0.1, brightness=0.0
)
RECIPES: dict[FashionName, Recipe] = {name: _RECIPE for name in FASHION_MODELS}
_log = logging.getLogger(__name__)


def read_split(files: Path, split: str) -> tuple[Tensor, Tensor]:
    """Return images (n, 3, 32, 32) uint8 and labels (n,) of a split; the channels share memory.

    Args:
        files: Folder with the idx files.
        split: ``"t10k"`` or ``"train"``.
    """
    layout, shift = IdxPair(CLOTHES, split), Shift("fashion-mnist")
    found = layout.checked(files, shift)
    plane = torch.from_numpy(found.images[..., 0].copy())[:, None]
    return plane.expand(-1, 3, -1, -1), torch.from_numpy(found.labels.astype("int64"))


def train(name: FashionName, recipe: Recipe, files: Path, folder: Path) -> list[float]:
    """Train one network, write its weights into a folder, and return the loss of every step.

    Args:
        name: Which network.
        recipe: Schedule, optimiser and seed.
        files: Folder with the idx files.
        folder: Where weights are written.
    """
    images, labels = read_split(files, "train")
    net = build_fashion(name, pretrained=False, seed=recipe.seed)

    def report(step: int, loss: float) -> None:
        _log.info("%s step %d of %d: loss %.3f", name, step, recipe.steps, loss)

    losses = fit_classifier(net, partial(normalised, mean=MEAN, std=STD), images, labels, recipe, report)
    save_half(net, fashion_weights(name, folder), recipe)
    return losses


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tta_bench.pocket.fashion.train", description=__doc__)
    parser.add_argument(
        "--files", type=Path, required=True, help="folder with the four idx files of Fashion-MNIST"
    )
    parser.add_argument("--model", choices=["all", *FASHION_MODELS], default="all")
    parser.add_argument("--steps", type=int, help="number of steps; by default the recipe's")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and augmentation")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for weights and model card")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in FASHION_MODELS if options.model == "all" else (options.model,):
        recipe = replace(RECIPES[name], seed=options.seed)
        if options.steps is not None:
            recipe = replace(recipe, steps=options.steps)
        train(name, recipe, options.files, options.out)
        record_accuracy(name, options.files, options.out)
        _log.info("%s: weights, accuracy and model card are in %s", name, options.out)


if __name__ == "__main__":
    main()
