# SPDX-License-Identifier: Apache-2.0
"""A video transformer that sees a still image: torchvision's MViTv2-S with the image repeated along time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import video

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.models.layers import freeze
from tta_bench.models.weights import seeded, unreachable

NAME = "torchvision/mvit_v2_s"
FRAMES = 16
MEAN, STD = 0.45, 0.225


@dataclass(frozen=True)
class StillVideo:
    """A video network and how it sees an image.

    Attributes:
        network: Maps (N, 3, 16, 224, 224) to logits.
        preprocess: The resize and crop of the image.
    """

    network: nn.Module
    preprocess: Preprocess

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits of images (N, 3, H, W) in [0, 1], each repeated along time."""
        clip = ((x - MEAN) / STD)[:, :, None].expand(-1, -1, FRAMES, -1, -1)
        logits: Tensor = self.network(clip)
        return logits


def load_still_video(*, pretrained: bool, seed: int = 0) -> StillVideo:
    """Load MViTv2-S with its Kinetics-400 weights, or with random ones drawn from `seed`.

    Raises:
        BadInputError: If the weights cannot be fetched.
    """
    weights: Any = video.MViT_V2_S_Weights.DEFAULT if pretrained else None
    try:
        with seeded(seed):
            network = video.mvit_v2_s(weights=weights, progress=False)
    except OSError as error:
        raise unreachable(NAME, weights.url, error, "TORCH_HOME") from error
    freeze(network)
    return StillVideo(network.eval().to(torch.float32), Preprocess((224, 224), 256, "bilinear"))
