# SPDX-License-Identifier: Apache-2.0
"""JPEG compression: through libjpeg on the CPU, by integer tensor arithmetic elsewhere.

Both give the same bits: baseline coding, 4:2:0 chroma, the accurate integer transform, smooth up-sampling of
the chroma. Entropy coding is lossless and therefore left out of the tensor version.

Source: ITU-T T.81; the arithmetic of libjpeg's accurate integer transform.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tta_bench.data.corruptions.base import Draws, Setting
from tta_bench.data.corruptions.jpeg_integer import jpeg_integer


def _coded(image: Image.Image, quality: int) -> Image.Image:
    """Return an image after encoding and decoding."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    # The decoder alone: size and mode are known, so the header need not be looked through first.
    return Image.frombytes("RGB", image.size, file.getvalue(), "jpeg", "RGB", "")


def jpeg_roundtrip(images: Tensor, quality: int) -> Tensor:
    """Return the images (N, 3, H, W) uint8 after saving as JPEG and reading back.

    Args:
        images: (N, 3, H, W) uint8.
        quality: 1 to 100, on the scale of libjpeg.
    """
    if images.device.type != "cpu":
        return jpeg_integer(images, quality)
    result = np.empty(images.shape, dtype=np.uint8)
    for planes, target in zip(images.numpy(), result, strict=True):
        # Pillow takes planes apart and puts them together faster than strided copies of arrays do.
        image = Image.merge("RGB", [Image.fromarray(plane) for plane in planes])
        coded = _coded(image, quality)
        for plane, band in zip(target, "RGB", strict=True):
            plane.reshape(-1)[:] = np.frombuffer(coded.tobytes("raw", band), dtype=np.uint8)
    return torch.from_numpy(result)


def jpeg_compression(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Save at a low quality and read back."""
    return jpeg_roundtrip(images, int(setting.constants[0]))
