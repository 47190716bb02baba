# SPDX-License-Identifier: Apache-2.0
"""Build the pocket models of PocketScenes from their shipped weights, or from random ones."""

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
from safetensors.torch import load_file
from torch import Tensor, nn

import tta_bench.pocket.vit  # noqa: F401  registers the tower with timm
from tta_bench.errors import UnknownNameError
from tta_bench.pocket.nets import MEAN, STD, WEIGHTS
from tta_bench.pocket.tokenizer import load_tokenizer

ClassifierName = Literal["pocket-bn", "pocket-gn"]
CLASSIFIERS: tuple[str, ...] = get_args(ClassifierName)
ClipName = Literal["pocket-clip", "pocket-vit-clip"]
CLIPS: tuple[ClipName, ...] = get_args(ClipName)
CLIP_NAME, VIT_CLIP_NAME = CLIPS
POCKET_MODELS = (*CLASSIFIERS, *CLIPS)


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
        raise UnknownNameError("pocket classifier", name, CLASSIFIERS, "build_clip makes the CLIPs")
    return create(name, weights_path(name, folder), pretrained=pretrained, seed=seed)


def create(name: str, weights: Path, *, pretrained: bool, seed: int) -> nn.Module:
    """Return a network that is registered with timm, in evaluation mode, with weights from a file or a seed."""
    overlay = {"file": str(weights)}
    with seeded(seed):
        net: nn.Module = timm.create_model(
            name.replace("-", "_"), pretrained=pretrained, pretrained_cfg_overlay=overlay
        )
    return net.eval()


@cache
def _register_configs() -> None:
    """Make open_clip know the pocket models' configurations."""
    for name in CLIPS:
        open_clip.add_model_config(WEIGHTS / f"{name}.json")


def build_clip(
    name: ClipName = CLIP_NAME, *, pretrained: bool = True, seed: int = 0, folder: Path = WEIGHTS
) -> tuple[open_clip.CustomTextCLIP, SimpleTokenizer]:
    """Return a pocket CLIP in evaluation mode, and its tokenizer.

    The model takes normalised images (N, 3, 32, 32) and token ids (P, 20); ``visual.preprocess_cfg`` holds
    the mean and standard deviation.

    Args:
        name: ``"pocket-clip"`` or ``"pocket-vit-clip"``.
        pretrained: Whether to load weights; without, they are random.
        seed: Seed of random weights.
        folder: Where the weights are.

    Raises:
        UnknownNameError: If there is no such pocket CLIP.
    """
    if name not in CLIPS:
        raise UnknownNameError("pocket CLIP", name, CLIPS, "build makes the classifiers")
    _register_configs()
    with seeded(seed):
        model = open_clip.create_model(name, force_preprocess_cfg={"mean": MEAN, "std": STD})
    if pretrained:
        model.load_state_dict(clip_tensors(name, folder))
    return model.eval(), load_tokenizer()


def clip_tensors(name: ClipName, folder: Path = WEIGHTS) -> dict[str, Tensor]:
    """Return the tensors of a pocket CLIP; the file of pocket-vit-clip holds its image tower alone.

    Its text side and temperature are those of pocket-clip, bit for bit.

    Args:
        name: Which pocket CLIP.
        folder: Where the weights are.
    """
    tensors = load_file(weights_path(CLIP_NAME, folder))
    if name == CLIP_NAME:
        return tensors
    text = {key: value for key, value in tensors.items() if not key.startswith("visual.")}
    return {**text, **load_file(weights_path(name, folder))}
