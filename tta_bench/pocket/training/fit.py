# SPDX-License-Identifier: Apache-2.0
"""The training loop of the pocket models: AdamW, warm-up and cosine, shifts, flips and random greyscale."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


@dataclass(frozen=True)
class Recipe:
    """Hold everything that decides a training run besides its data and its loss.

    Attributes:
        steps: Number of optimiser steps; there is no early stopping.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay of matrices and kernels; vectors have none.
        batch: Images per step.
        warmup: Steps over which the learning rate rises from 0.
        clip: Largest gradient norm.
        shift: Largest shift of an image, in pixels.
        grey: Probability that an image loses its colour.
        negative: Probability that an image is inverted.
        contrast: Contrast about mid grey is multiplied by 1 plus or minus up to this.
        brightness: Up to this fraction of the range is added or taken away.
        seed: Seed of the initial weights, the order and the augmentation.
    """

    steps: int
    lr: float
    weight_decay: float
    batch: int = 128
    warmup: int = 60
    clip: float = 1.0
    shift: int = 3
    grey: float = 0.3
    negative: float = 0.1
    contrast: float = 0.3
    brightness: float = 0.08
    seed: int = 0


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine down to 0."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))


def _moved(images: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    """Return the images shifted by up to ``reach`` pixels, half of them mirrored."""
    n, _, height, width = images.shape
    padded = nn.functional.pad(images, (reach,) * 4, mode="reflect")
    down, right = torch.randint(0, 2 * reach + 1, (2, n, 1), generator=generator)
    columns = torch.arange(width).expand(n, width)
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns) + right
    rows = torch.arange(height) + down
    at = torch.arange(n)[:, None, None]
    moved: Tensor = padded[at, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return moved


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Return images shifted, mirrored and with changed colours.

    Args:
        images: (N, 3, H, W) uint8.
        recipe: Gives the strength of every change.
        generator: Source of all randomness.

    Returns:
        (N, 3, H, W) float32 in [0, 1].
    """
    moved = _moved(images.float() / 255, recipe.shift, generator)
    grey, negative, contrast, brightness = torch.rand(4, len(images), 1, 1, 1, generator=generator)
    luma = (moved * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    x = torch.where(grey < recipe.grey, luma, moved)
    x = torch.where(negative < recipe.negative, 1 - x, x)
    scale, offset = 1 + (contrast * 2 - 1) * recipe.contrast, (brightness * 2 - 1) * recipe.brightness
    x = (x - 0.5) * scale + 0.5 + offset
    changed: Tensor = x.clamp(0, 1)
    return changed


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return the parameters in two groups: matrices with weight decay, vectors and scalars without."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def fit(
    module: nn.Module,
    recipe: Recipe,
    size: int,
    loss_of: Callable[[int, Tensor, torch.Generator], Tensor],
    report: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train a module in place.

    Args:
        module: What to train; its parameters are changed.
        recipe: The schedule, the optimiser and the seed.
        size: Number of training images.
        loss_of: Maps the step, the (B,) indices of its images and the generator to a scalar loss.
        report: Called with the step and the mean loss of the last 100 steps.

    Returns:
        The loss of every step.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    optimiser = torch.optim.AdamW(_groups(module, recipe.weight_decay), lr=recipe.lr)
    module.train()
    losses: list[float] = []
    order = torch.empty(0, dtype=torch.int64)
    for step in range(recipe.steps):
        if len(order) < recipe.batch:
            order = torch.randperm(size, generator=generator)
        picked, order = order[: recipe.batch], order[recipe.batch :]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, step)
        loss = loss_of(step, picked, generator)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), recipe.clip)
        optimiser.step()
        losses.append(loss.item())
        if report and (step + 1) % 100 == 0:
            report(step + 1, sum(losses[-100:]) / 100)
    module.eval()
    return losses


def fit_classifier(
    net: nn.Module,
    normalise: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    report: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train a classifier in place with the cross-entropy of changed images; return the loss of every step.

    Args:
        net: The network; it is brought to the channels-last format.
        normalise: Maps images in [0, 1] to the network's input.
        images: (N, 3, H, W) uint8.
        labels: (N,) class indices.
        recipe: Schedule, optimiser and seed.
        report: Called with the step and the mean loss of the last 100 steps.
    """
    net.to(memory_format=torch.channels_last)

    def loss_of(step: int, picked: Tensor, generator: torch.Generator) -> Tensor:
        x = normalise(augment(images[picked], recipe, generator)).to(memory_format=torch.channels_last)
        return cross_entropy(net(x), labels[picked])

    return fit(net, recipe, len(images), loss_of, report)
