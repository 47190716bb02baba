# SPDX-License-Identifier: Apache-2.0
"""Train pocket-vit-clip: its image tower imitates pocket-clip's and shares the text side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from open_clip import CustomTextCLIP
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tta_bench.pocket.training.contrastive import image_features
from tta_bench.pocket.training.evaluate import prototypes
from tta_bench.pocket.training.fit import Recipe, augment, fit
from tta_bench.pocket.zoo import VIT_CLIP_NAME, build_clip

_LABEL_WEIGHT = 0.5
_LABEL_SCALE = 20.0


def distillation_loss(features: Tensor, target: Tensor, head: Tensor, labels: Tensor) -> Tensor:
    """Return one minus the cosine with the teacher's features, plus half the cross-entropy of the labels.

    Args:
        features: (N, D) unit image features of the student.
        target: (N, D) unit image features of the teacher.
        head: (K, D) unit text features of the classes.
        labels: (N,) class indices.
    """
    imitation = 1 - (features * target).sum(1).mean()
    return imitation + _LABEL_WEIGHT * cross_entropy(_LABEL_SCALE * features @ head.T, labels)


def teacher_features(teacher: CustomTextCLIP, images: Tensor, batch: int = 500) -> Tensor:
    """Return the teacher's unit features (N, D) of images (N, 3, 32, 32) uint8 as they are, without changes."""
    with torch.no_grad():
        return torch.cat([image_features(teacher, part.float() / 255) for part in torch.split(images, batch)])


def train_vit_clip(
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    folder: Path,
    report: Callable[[int, float], None] | None = None,
) -> tuple[CustomTextCLIP, list[float]]:
    """Return pocket-vit-clip, distilled from the pocket-clip in ``folder``, and the loss of every step.

    The student sees changed images and answers for the teacher's features of the images as they are, so it learns
    to look through the changes.

    Args:
        images: (N, 3, 32, 32) uint8.
        labels: (N,) class indices.
        recipe: Schedule, optimiser and seed.
        folder: Where the weights of pocket-clip are.
        report: Called with the step and the mean loss of the last 100 steps.
    """
    teacher, tokenizer = build_clip(folder=folder)
    targets, head = teacher_features(teacher, images), prototypes(teacher, tokenizer)
    student, _ = build_clip(VIT_CLIP_NAME, pretrained=False, seed=recipe.seed)
    shared = {key: value for key, value in teacher.state_dict().items() if not key.startswith("visual.")}
    student.load_state_dict(shared, strict=False)

    def loss_of(step: int, picked: Tensor, generator: torch.Generator) -> Tensor:
        features = image_features(student, augment(images[picked], recipe, generator))
        return distillation_loss(features, targets[picked], head, labels[picked])

    return student, fit(_Tower(student), recipe, len(images), loss_of, report)


class _Tower(nn.Module):
    """Show the optimiser the image tower alone."""

    def __init__(self, model: CustomTextCLIP) -> None:
        super().__init__()
        self.visual = model.visual
