# SPDX-License-Identifier: Apache-2.0
"""The small residual network of the pocket models, in the form timm expects of an image model.

Importing this module registers ``pocket_bn`` and ``pocket_gn`` with timm, so ``timm.create_model`` and
open_clip's timm trunks can make them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from tta_bench.pocket.scenes.spec import CLASS_NAMES, SIDE

Colour = tuple[float, float, float]
WEIGHTS = Path(__file__).parent / "weights"
MEAN = (0.45, 0.48, 0.45)
STD = (0.30, 0.25, 0.28)
WIDTHS = (16, 32, 64)
GROUPS = 8


def group_norm(channels: int) -> nn.Module:
    """Return a group normalisation over eight groups."""
    return nn.GroupNorm(GROUPS, channels)


class Block(nn.Module):
    """Add two 3x3 convolutions to their input; where the shape changes the input goes through a 1x1 one."""

    def __init__(self, inside: int, outside: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = norm(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = norm(outside)
        self.act = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.downsample = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), norm(outside))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's activations."""
        y = self.act(self.norm1(self.conv1(x)))
        return self.act(self.norm2(self.conv2(y)) + self.downsample(x))  # type: ignore[no-any-return]


class PocketNet(nn.Module):
    """Classify 32x32 images with a stride-2 stem, three residual blocks and a linear head.

    Args:
        num_classes: Width of the classifier; 0 for none.
        in_chans: Channels of the input.
        global_pool: ``"avg"``, or ``""`` to leave the feature map as it is.
        drop_rate: Dropout before the classifier.
        norm: Makes the normalisation layer for a number of channels.
    """

    def __init__(
        self,
        num_classes: int = len(CLASS_NAMES),
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.drop_rate = drop_rate
        self.num_features = self.head_hidden_size = WIDTHS[-1]
        self.conv_stem = nn.Conv2d(in_chans, WIDTHS[0], 3, 2, 1, bias=False)
        self.norm_stem = norm(WIDTHS[0])
        self.act_stem = nn.ReLU()
        strides, before = (1, 2, 2), (WIDTHS[0], *WIDTHS[:-1])
        self.blocks = nn.Sequential(
            *(Block(a, b, s, norm) for a, b, s in zip(before, WIDTHS, strides, strict=True))
        )
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def get_classifier(self) -> nn.Module:
        """Return the classifier."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier, and the pooling if one is given.

        Args:
            num_classes: Width of the new classifier; 0 for none.
            global_pool: ``"avg"`` or ``""``.
        """
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool: nn.Module = nn.AdaptiveAvgPool2d(1) if global_pool else nn.Identity()
        self.fc: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the patterns by which timm groups parameters into stem and blocks."""
        return {"stem": r"^conv_stem|norm_stem", "blocks": r"^blocks\.(\d+)"}

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, (N, 64, H/8, W/8)."""
        x = self.act_stem(self.norm_stem(self.conv_stem(x)))
        return self.blocks(x)  # type: ignore[no-any-return]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits (N, K), or with ``pre_logits`` the pooled features (N, 64)."""
        x = self.global_pool(x)
        if not isinstance(self.global_pool, nn.Identity):
            x = self.head_drop(x.flatten(1))
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) of normalised images (N, 3, H, W)."""
        return self.forward_head(self.forward_features(x))


def timm_facts(
    weights: Path, num_classes: int = len(CLASS_NAMES), mean: Colour = MEAN, std: Colour = STD
) -> dict[str, Any]:
    """Return what timm must know of a pocket network and where its weights are."""
    return {
        "file": str(weights),
        "num_classes": num_classes,
        "input_size": (3, SIDE, SIDE),
        "pool_size": (SIDE // 8, SIDE // 8),
        "fixed_input_size": False,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": mean,
        "std": std,
        "first_conv": "conv_stem",
        "classifier": "fc",
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs(
    {f"pocket_{norm}": timm_facts(WEIGHTS / f"pocket-{norm}.safetensors") for norm in ("bn", "gn")}
)


@register_model  # type: ignore[untyped-decorator]
def pocket_bn(pretrained: bool = False, **kwargs: Any) -> PocketNet:
    """Return the pocket network with batch normalisation."""
    net: PocketNet = build_model_with_cfg(PocketNet, "pocket_bn", pretrained, norm=nn.BatchNorm2d, **kwargs)
    return net


@register_model  # type: ignore[untyped-decorator]
def pocket_gn(pretrained: bool = False, **kwargs: Any) -> PocketNet:
    """Return the pocket network with group normalisation."""
    net: PocketNet = build_model_with_cfg(PocketNet, "pocket_gn", pretrained, norm=group_norm, **kwargs)
    return net


def normalised(x: Tensor, mean: Colour = MEAN, std: Colour = STD) -> Tensor:
    """Return images (N, 3, H, W) in [0, 1] as the networks expect them: centred and divided per channel."""
    centre, spread = (torch.tensor(v, device=x.device)[:, None, None] for v in (mean, std))
    return (x - centre) / spread
