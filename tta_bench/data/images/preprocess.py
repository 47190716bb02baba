# SPDX-License-Identifier: Apache-2.0
"""The resize and crop that a source model expects, as facts and as a function on PIL images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

Interpolation = Literal["bilinear", "bicubic", "nearest"]


@dataclass(frozen=True)
class Preprocess:
    """The steps from an image to a model's input; the normalisation is inside the source model.

    Attributes:
        size: Height and width of the input, pixels.
        resize: Length of the shorter side before the centre crop, pixels; or height and width before it,
            without keeping the aspect; None resizes to `size` directly, without keeping the aspect; 0 only crops,
            with a black border around an image that is smaller.
        interpolation: Filter of the resize (antialiased, as Pillow does it).
        note: What the protocol card says of it besides.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"
    note: str = ""

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the uint8 input (3, H, W) of one image."""
        image = image.convert("RGB")
        if self.resize == 0:
            image = TF.center_crop(image, list(self.size))
        elif (image.height, image.width) != self.size or self.resize not in (None, min(self.size)):
            mode = v2.InterpolationMode(self.interpolation)
            target = [self.resize] if isinstance(self.resize, int) else list(self.resize or self.size)
            image = TF.center_crop(
                TF.resize(image, target, interpolation=mode, antialias=True), list(self.size)
            )
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def batch(self, images: Tensor) -> Tensor:
        """Return the inputs (N, 3, H', W') of uint8 images (N, 3, H, W) that are held as arrays.

        An image that already has the input size is passed through; others are resized to the shorter side and
        cropped as files are, without the margin that crops cut from photographs.
        """
        if tuple(images.shape[-2:]) == self.size:
            return images
        whole = Preprocess(
            self.size, min(self.size) if images.shape[-1] == images.shape[-2] else None, self.interpolation
        )
        return torch.stack([whole(TF.to_pil_image(image)) for image in images])

    def describe(self) -> str:
        """Return the facts in one phrase, for the protocol card."""
        note = f"; {self.note}" if self.note else ""
        return f"{self._facts()}{note}"

    def _facts(self) -> str:
        height, width = self.size
        if self.resize == 0:
            return f"centre crop {height}x{width}"
        first = (
            f"resize {self.resize} {self.interpolation}, centre crop "
            if self.resize
            else f"{self.interpolation} "
        )
        return f"{first}{height}x{width}"
