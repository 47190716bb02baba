# SPDX-License-Identifier: Apache-2.0
"""The networks pocket-fashion-bn and pocket-fashion-gn: those of the pocket models, for ten kinds of clothes.

Importing this module registers ``pocket_fashion_bn`` and ``pocket_fashion_gn`` with timm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from tta_bench.data.catalogue.mnist import CLOTHES
from tta_bench.errors import UnknownNameError
from tta_bench.pocket.nets import PocketNet, group_norm, timm_facts
from tta_bench.pocket.zoo import create

FashionName = Literal["pocket-fashion-bn", "pocket-fashion-gn"]
FASHION_MODELS: tuple[FashionName, ...] = get_args(FashionName)
WEIGHTS = Path(__file__).parent / "weights"
# Of the 60,000 training images with their border of zeros, rounded.
MEAN, STD = (0.22,) * 3, (0.33,) * 3

default_cfgs = generate_default_cfgs(
    {
        name.replace("-", "_"): timm_facts(WEIGHTS / f"{name}.safetensors", len(CLOTHES), MEAN, STD)
        for name in FASHION_MODELS
    }
)


@register_model  # type: ignore[untyped-decorator]
def pocket_fashion_bn(pretrained: bool = False, **kwargs: Any) -> PocketNet:
    """Return the network of pocket-fashion with batch normalisation."""
    facts = {"num_classes": len(CLOTHES), "norm": nn.BatchNorm2d, **kwargs}
    net: PocketNet = build_model_with_cfg(PocketNet, "pocket_fashion_bn", pretrained, **facts)
    return net


@register_model  # type: ignore[untyped-decorator]
def pocket_fashion_gn(pretrained: bool = False, **kwargs: Any) -> PocketNet:
    """Return the network of pocket-fashion with group normalisation."""
    facts = {"num_classes": len(CLOTHES), "norm": group_norm, **kwargs}
    net: PocketNet = build_model_with_cfg(PocketNet, "pocket_fashion_gn", pretrained, **facts)
    return net


def fashion_weights(name: FashionName, folder: Path = WEIGHTS) -> Path:
    """Return the file of a network's weights.

    Raises:
        UnknownNameError: If there is no such network.
    """
    if name not in FASHION_MODELS:
        raise UnknownNameError("pocket-fashion model", name, FASHION_MODELS)
    return folder / f"{name}.safetensors"


def build_fashion(
    name: FashionName, *, pretrained: bool = True, seed: int = 0, folder: Path = WEIGHTS
) -> nn.Module:
    """Return a network in evaluation mode; it takes normalised images (N, 3, 32, 32) and gives ten logits.

    Args:
        name: ``"pocket-fashion-bn"`` or ``"pocket-fashion-gn"``.
        pretrained: Whether to load weights; without, they are random.
        seed: Seed of random weights.
        folder: Where the weights are.

    Raises:
        UnknownNameError: If there is no such network.
    """
    return create(name, fashion_weights(name, folder), pretrained=pretrained, seed=seed)
