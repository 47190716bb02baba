# SPDX-License-Identifier: Apache-2.0
"""Train the pocket models and write their weights, measured accuracy and model card.

Run ``python -m tta_bench.pocket.training.train --model all --out DIR``. The order is fixed: pocket-clip starts
from the image tower of pocket-gn, and pocket-vit-clip is distilled from pocket-clip. Nothing is chosen by
accuracy: step counts are fixed.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from safetensors.torch import save
from torch import Tensor, nn

from tta_bench.pocket.nets import WEIGHTS, normalised
from tta_bench.pocket.scenes.painter import facts, render
from tta_bench.pocket.scenes.spec import SPLIT_SIZES
from tta_bench.pocket.training.card import record_accuracy
from tta_bench.pocket.training.contrastive import train_clip
from tta_bench.pocket.training.distill import train_vit_clip
from tta_bench.pocket.training.fit import Recipe, fit_classifier
from tta_bench.pocket.zoo import CLIP_NAME, POCKET_MODELS, VIT_CLIP_NAME, build, weights_path
from tta_bench.spec.whole import write_whole

RECIPES: dict[str, Recipe] = {
    # Hardly any change of light, so that shifts of light leave batch statistics something to correct.
    "pocket-bn": Recipe(steps=4000, lr=6e-3, weight_decay=5e-4, contrast=0.1, brightness=0.0),
    "pocket-gn": Recipe(steps=4000, lr=6e-3, weight_decay=5e-4),
    "pocket-clip": Recipe(steps=3000, lr=2e-3, weight_decay=0.05),
    "pocket-vit-clip": Recipe(
        steps=3000,
        lr=1.5e-3,
        weight_decay=0.05,
        warmup=100,
        grey=0.0,
        negative=0.0,
        contrast=0.0,
        brightness=0.0,
    ),
}
_log = logging.getLogger(__name__)


def train_classifier(
    name: str,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    report: Callable[[int, float], None] | None = None,
) -> tuple[nn.Module, list[float]]:
    """Return a pocket classifier trained from random weights, and the loss of every step.

    Args:
        name: ``"pocket-bn"`` or ``"pocket-gn"``.
        images: (N, 3, 32, 32) uint8.
        labels: (N,) class indices.
        recipe: Schedule, optimiser and seed.
        report: Called with the step and the mean loss of the last 100 steps.
    """
    net = build(name, pretrained=False, seed=recipe.seed)  # type: ignore[arg-type]
    return net, fit_classifier(net, normalised, images, labels, recipe, report)


def save_half(model: nn.Module, path: Path, recipe: Recipe, under: str = "") -> None:
    """Write a model's weights as float16 safetensors, with its recipe as metadata.

    Args:
        model: The trained model.
        path: The file to write.
        recipe: How it was trained.
        under: Start of the names of the tensors to write; by default all.
    """
    tensors = {
        name: (t.half() if t.is_floating_point() else t).contiguous().clone()
        for name, t in model.state_dict().items()
        if name.startswith(under)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # One metadata entry: the order of several is not kept, and the same run must write the same bytes.
    write_whole(path, save(tensors, {"recipe": json.dumps(asdict(recipe))}))


def train(name: str, recipe: Recipe, folder: Path) -> list[float]:
    """Train one pocket model, write its weights into a folder, and return the loss of every step.

    Args:
        name: Which pocket model.
        recipe: Schedule, optimiser and seed.
        folder: Where weights are written, and where pocket-clip finds pocket-gn and pocket-vit-clip pocket-clip.
    """
    indices = range(SPLIT_SIZES["train"])
    images, labels = render("train", indices)

    def report(step: int, loss: float) -> None:
        _log.info("%s step %d of %d: loss %.3f", name, step, recipe.steps, loss)

    model: nn.Module
    if name == CLIP_NAME:
        model, losses = train_clip(images, labels, facts("train", indices), recipe, folder, report)
    elif name == VIT_CLIP_NAME:
        model, losses = train_vit_clip(images, labels, recipe, folder, report)
    else:
        model, losses = train_classifier(name, images, labels, recipe, report)
    # The text side of pocket-vit-clip is stored once, with pocket-clip.
    save_half(model, weights_path(name, folder), recipe, under="visual." if name == VIT_CLIP_NAME else "")
    return losses


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tta_bench.pocket.training.train", description=__doc__)
    parser.add_argument("--model", choices=["all", *POCKET_MODELS], default="all")
    parser.add_argument("--steps", type=int, help="number of steps; by default the recipe's")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and augmentation")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for weights and model card")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = POCKET_MODELS if options.model == "all" else (options.model,)
    for name in names:
        recipe = replace(RECIPES[name], seed=options.seed)
        if options.steps is not None:
            recipe = replace(recipe, steps=options.steps)
        train(name, recipe, options.out)
        record_accuracy(name, options.out)
        _log.info("%s: weights, accuracy and model card are in %s", name, options.out)


if __name__ == "__main__":
    main()
