# SPDX-License-Identifier: Apache-2.0
"""Frost: a blend with a random part of an ice texture."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tta_bench.data.corruptions.base import Arrays, Draws, Setting, to_bytes
from tta_bench.data.corruptions.constants import Scale
from tta_bench.data.corruptions.frost_texture import STYLES, Texture, generated_textures
from tta_bench.data.corruptions.rng import Stream
from tta_bench.data.images.contents import folder_sums
from tta_bench.data.images.files import Paths, UnreadableImageError, decode
from tta_bench.errors import BadInputError

_ENLARGEMENT: Final = 1.1
_REDUCTION: Final[dict[Scale, float]] = {"cifar": 0.2, "tiny": 0.3}
_SUFFIXES: Final = (".jpg", ".jpeg", ".png")


def _files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not files:
        raise BadInputError(
            f"frost_dir must be a folder of PNG or JPEG images, found none in {str(folder)!r}; check it"
        )
    return files


@cache
def _photographs(folder: Path) -> tuple[Texture, ...]:
    images = Paths(folder, [file.name for file in _files(folder)])
    try:
        return tuple(np.asarray(decode(images, position)) for position in range(len(images)))
    except UnreadableImageError as error:
        raise BadInputError(
            f"the frost image {error.where} cannot be decoded ({error.reason}); replace it or remove it"
        ) from error


def option_facts(chosen: Iterable[tuple[str, Any]]) -> list[list[Any]]:
    """Return options of the corruptions for a hash: in place of the frost folder, what its images are.

    Raises:
        BadInputError: If the frost folder holds no image.
    """
    return [[name, folder_sums(_files(value)) if name == "frost_dir" else value] for name, value in chosen]


def _enlarged_size(size: tuple[int, int], setting: Setting) -> tuple[int, int]:
    cover = max(1.0, setting.height / size[0], setting.width / size[1])
    return math.ceil(size[0] * cover * _ENLARGEMENT), math.ceil(size[1] * cover * _ENLARGEMENT)


def _reduced_size(size: tuple[int, int], setting: Setting) -> tuple[int, int]:
    ratio = max(_REDUCTION[setting.scale], setting.height / size[0], setting.width / size[1])
    return max(setting.height, round(size[0] * ratio)), max(setting.width, round(size[1] * ratio))


def fit_texture(texture: Texture, setting: Setting) -> npt.NDArray[np.uint8]:
    """Return a texture (H, W, 3) resized for images of the setting, planes first (3, h, w).

    At imagenet scale it is enlarged by 1.1, or more where the image needs it, with cubic interpolation; at the
    small scales it is reduced to a fifth (cifar) or three tenths (tiny), with linear interpolation.
    """
    size = (texture.shape[0], texture.shape[1])
    planes = torch.from_numpy(np.ascontiguousarray(texture.transpose(2, 0, 1)))[None].float()
    if setting.scale == "imagenet":
        resized = interpolate(planes, _enlarged_size(size, setting), mode="bicubic", align_corners=False)
    else:
        resized = interpolate(planes, _reduced_size(size, setting), mode="bilinear", align_corners=False)
    return np.asarray(resized[0].round_().clamp_(0, 255).to(torch.uint8).numpy())


@lru_cache(maxsize=8)
def _fitted(folder: Path | None, setting: Setting) -> tuple[npt.NDArray[np.uint8], ...]:
    textures = generated_textures() if folder is None else _photographs(folder)
    return tuple(fit_texture(texture, setting) for texture in textures)


def draw_frost(stream: Stream, setting: Setting) -> Arrays:
    """Draw a texture and its part: (3, H, W) uint8."""
    folder = Path(setting.options.frost_dir) if setting.options.frost_dir else None
    # Only the size and the scale decide how textures are resized: one cache entry for all severities.
    textures = _fitted(folder, setting._replace(constants=(), severity=0))
    choice, row, column = (float(value) for value in stream.uniform(0, 1, 3))
    shares = [1 / len(textures)] * len(textures) if folder else [style.weight for style in STYLES]
    picked = textures[int(np.searchsorted(np.cumsum(shares)[:-1], choice, side="right"))]
    top, left = int(row * (picked.shape[1] - setting.height)), int(column * (picked.shape[2] - setting.width))
    return {"texture": picked[:, top : top + setting.height, left : left + setting.width]}


def frost(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Blend the image with the texture."""
    image, ice = setting.constants
    return to_bytes(images.float().mul_(image).add_(draws["texture"].float(), alpha=ice))
