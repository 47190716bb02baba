# SPDX-License-Identifier: Apache-2.0
"""Build the three pocket models from their shipped weights, or from random ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

import open_clip
import timm
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import nn

from tta_bench.errors import UnknownNameError
from tta_bench.pocket.nets import MEAN, STD, WEIGHTS
from tta_bench.pocket.tokenizer import load_tokenizer

ClassifierName = Literal["pocket-bn", "pocket-gn"]
CLASSIFIERS: tuple[str, ...] = get_args(ClassifierName)
CLIP_NAME = "pocket-clip"
POCKET_MODELS = (*CLASSIFIERS, CLIP_NAME)
_CONFIG = WEIGHTS / f"{CLIP_NAME}.json"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's default generator for the initial weights made inside, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def weights_path(name: str, folder: Path = WEIGHTS) -> Path:
    """Return the file of a pocket model's weights.

    Raises:
        UnknownNameError: If there is no such pocket model.
    """
    if name not in POCKET_MODELS:
        raise UnknownNameError("pocket model", name, POCKET_MODELS)
    return folder / f"{name}.safetensors"


def weights_sha256(name: str) -> str:
    """Return the SHA-256 of a pocket model's shipped weights file, in hexadecimal.

    Raises:
        UnknownNameError: If there is no such pocket model.
    """
    return sha256(weights_path(name).read_bytes()).hexdigest()


def build(
    name: ClassifierName, *, pretrained: bool = True, seed: int = 0, folder: Path = WEIGHTS
) -> nn.Module:
    """Return a pocket classifier in evaluation mode; it takes normalised images (N, 3, 32, 32).

    Args:
        name: ``"pocket-bn"`` or ``"pocket-gn"``.
        pretrained: Whether to load weights; without, they are random.
        seed: Seed of random weights.
        folder: Where the weights are.

    Raises:
        UnknownNameError: If there is no such classifier.
    """
    if name not in CLASSIFIERS:
        raise UnknownNameError("pocket classifier", name, CLASSIFIERS, "build_clip makes pocket-clip")
    overlay = {"file": str(weights_path(name, folder))}
    with seeded(seed):
        net: nn.Module = timm.create_model(
            name.replace("-", "_"), pretrained=pretrained, pretrained_cfg_overlay=overlay
        )
    return net.eval()


@cache
def _register_config() -> None:
    """Make open_clip know pocket-clip's configuration."""
    open_clip.add_model_config(_CONFIG)


def build_clip(
    *, pretrained: bool = True, seed: int = 0, folder: Path = WEIGHTS
) -> tuple[open_clip.CustomTextCLIP, SimpleTokenizer]:
    """Return pocket-clip in evaluation mode, and its tokenizer.

    The model takes normalised images (N, 3, 32, 32) and token ids (P, 20); ``visual.preprocess_cfg`` holds
    the mean and standard deviation.

    Args:
        pretrained: Whether to load weights; without, they are random.
        seed: Seed of random weights.
        folder: Where the weights are.
    """
    _register_config()
    with seeded(seed):
        model = open_clip.create_model(
            CLIP_NAME,
            pretrained=str(weights_path(CLIP_NAME, folder)) if pretrained else None,
            force_preprocess_cfg={"mean": MEAN, "std": STD},
        )
    return model.eval(), load_tokenizer()
