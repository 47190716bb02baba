# SPDX-License-Identifier: Apache-2.0
"""Train pocket-clip: class prompts and captions against images, from a warm-started image tower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from open_clip import CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from tta_bench.pocket.nets import normalised
from tta_bench.pocket.scenes.spec import CLASS_NAMES, TEMPLATES, Facts
from tta_bench.pocket.training.fit import Recipe, augment, fit
from tta_bench.pocket.training.prompts import caption
from tta_bench.pocket.zoo import build, build_clip

_MAX_LOG_SCALE = 4.6052  # ln(100), as in CLIP


def image_features(model: CustomTextCLIP, images: Tensor) -> Tensor:
    """Return the unit image features (N, D) of images in [0, 1]."""
    x = normalised(images).to(memory_format=torch.channels_last)
    return normalize(model.encode_image(x), dim=1)


def prompt_loss(model: CustomTextCLIP, tokens: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of images against one prompt per class.

    Args:
        model: The model being trained.
        tokens: (K, L) token ids of the class prompts.
        images: (N, 3, H, W) in [0, 1].
        labels: (N,) class indices.
    """
    text = normalize(model.encode_text(tokens), dim=1)
    scale = model.logit_scale.clamp(max=_MAX_LOG_SCALE).exp()
    return cross_entropy(scale * image_features(model, images) @ text.T, labels)


def caption_loss(model: CustomTextCLIP, tokens: Tensor, images: Tensor) -> Tensor:
    """Return the symmetric contrastive loss of images and captions; identical captions are all positives.

    Args:
        model: The model being trained.
        tokens: (N, L) token ids of the captions.
        images: (N, 3, H, W) in [0, 1].
    """
    text = normalize(model.encode_text(tokens), dim=1)
    scale = model.logit_scale.clamp(max=_MAX_LOG_SCALE).exp()
    logits = scale * image_features(model, images) @ text.T
    same = (tokens[:, None] == tokens[None]).all(-1).float()
    target = same / same.sum(1, keepdim=True)
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def train_clip(
    images: Tensor,
    labels: Tensor,
    facts: list[Facts],
    recipe: Recipe,
    folder: Path,
    report: Callable[[int, float], None] | None = None,
) -> tuple[CustomTextCLIP, list[float]]:
    """Return pocket-clip, trained from the image tower of the pocket-gn in ``folder``, and its losses.

    Two steps of three compare images with class prompts of a random template, the third with captions.

    Args:
        images: (N, 3, 32, 32) uint8.
        labels: (N,) class indices.
        facts: What each image shows.
        recipe: Schedule, optimiser and seed.
        folder: Where the weights of pocket-gn are.
        report: Called with the step and the mean loss of the last 100 steps.
    """
    model, tokenizer = build_clip(pretrained=False, seed=recipe.seed)
    tower = build("pocket-gn", folder=folder)
    tower.reset_classifier(0)  # type: ignore[operator]
    model.visual.trunk.load_state_dict(tower.state_dict())
    model.to(memory_format=torch.channels_last)
    prompts = [_tokens(tokenizer, template) for template in TEMPLATES]

    def loss_of(step: int, picked: Tensor, generator: torch.Generator) -> Tensor:
        batch = augment(images[picked], recipe, generator)
        if step % 3 == 2:
            texts = [caption(facts[i], generator) for i in picked.tolist()]
            return caption_loss(model, tokenizer(texts), batch)
        template = int(torch.randint(len(prompts), (), generator=generator))
        return prompt_loss(model, prompts[template], batch, labels[picked])

    losses = fit(model, recipe, len(images), loss_of, report)
    with torch.no_grad():
        model.logit_scale.clamp_(max=_MAX_LOG_SCALE)
    return model, losses


def _tokens(tokenizer: SimpleTokenizer, template: str) -> Tensor:
    """Return the token ids (K, L) of a template's class prompts."""
    tokens: Tensor = tokenizer([template.format(name) for name in CLASS_NAMES])
    return tokens
