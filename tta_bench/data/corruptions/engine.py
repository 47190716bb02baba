# SPDX-License-Identifier: Apache-2.0
"""The entry point: check the request, draw per image, apply to batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tta_bench.data.corruptions.base import Draws, Options, Setting
from tta_bench.data.corruptions.constants import CONSTANTS, MIN_SIZE, SCALES, SEVERITIES, Scale
from tta_bench.data.corruptions.jpeg import jpeg_roundtrip
from tta_bench.data.corruptions.registry import REGISTRY
from tta_bench.data.corruptions.rng import Stream, image_key
from tta_bench.errors import BadInputError, UnknownNameError

_CACHED_VALUES: Final = 1 << 18
_HELD_VALUES: Final = 1 << 26
_DISTRIBUTED_QUALITY: Final = 85


def corrupt(
    images: Tensor,
    name: str,
    severity: int,
    seed: int,
    *,
    ids: Sequence[int | str] | Tensor | None = None,
    scale: Scale | None = None,
    options: Options | None = None,
) -> Tensor:
    """Return the images under one corruption at one severity.

    The result of an image depends on the image, its id, the corruption, the severity and the seed, on nothing
    else: not on the batch, the order, the worker or, up to float32 rounding of one level, the device. Values are
    truncated to 8 bits as in the published data.

    Args:
        images: (N, 3, H, W) uint8, H and W at least 32, on any device; already resized and cropped.
        name: One of `CORRUPTIONS` or `EXTRA`.
        severity: 1 to 5.
        seed: Seed of the whole corrupted data set.
        ids: N integers or strings that identify the images; by default 0 to N - 1, the place in the batch.
        scale: Which constants to use: ``"imagenet"``, ``"cifar"`` or ``"tiny"`` (Tiny-ImageNet-C). By default
            ``"cifar"`` for 32 x 32 images and ``"imagenet"`` for all others.
        options: Choices between published variants.

    Returns:
        (N, 3, H, W) uint8 on the device of the images.

    Raises:
        UnknownNameError: If there is no such corruption or scale.
        BadInputError: If the severity is not 1 to 5, or images or ids are not as described.

    Source: arXiv:1903.12261.
    """
    setting = make_setting(name, severity, tuple(images.shape[2:]), scale, options)
    _check_images(images)
    keys = _image_ids(ids, len(images))
    return _in_parts(name, images, keys, seed, setting) if len(images) else images.clone()


def _in_parts(name: str, images: Tensor, ids: Sequence[int | str], seed: int, setting: Setting) -> Tensor:
    """Corrupt the images in parts: on the CPU as many at once as fit the cache, elsewhere as fit the memory."""
    by_cache = images.device.type == "cpu" and not REGISTRY[name].one_by_one
    size = max(1, (_CACHED_VALUES if by_cache else _HELD_VALUES) // max(1, images[:1].numel()))
    if len(images) <= size:
        return apply(name, images, draw(name, ids, seed, setting, images.device), setting)
    result = torch.empty_like(images)
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        draws = draw(name, ids[part], seed, setting, images.device)
        result[part] = apply(name, images[part], draws, setting)
    return result


def make_setting(
    name: str,
    severity: int,
    size: tuple[int, ...],
    scale: Scale | None = None,
    options: Options | None = None,
) -> Setting:
    """Return the checked setting of a corruption for images of one size (height, width).

    Raises:
        UnknownNameError: If there is no such corruption or scale.
        BadInputError: If the severity is not 1 to 5, an option is not known, or the size is below 32.
    """
    if name not in REGISTRY:
        raise UnknownNameError("corruption", name, REGISTRY)
    if isinstance(severity, bool) or severity not in SEVERITIES:
        raise BadInputError(
            f"severity must be an integer from 1 to 5, got {severity!r}; 0 would be the clean image"
        )
    if len(size) != 2 or min(size) < MIN_SIZE:
        raise BadInputError(
            f"images must be (N, 3, H, W) with H and W of at least {MIN_SIZE} pixels, got height and width "
            f"{tuple(size)}; resize the images first"
        )
    chosen: Scale = scale or ("cifar" if tuple(size) == (32, 32) else "imagenet")
    if chosen not in SCALES:
        raise UnknownNameError("scale of the corruption constants", chosen, SCALES)
    constants = tuple(float(value) for value in CONSTANTS[name][chosen][severity - 1])
    return Setting(constants, severity, chosen, size[0], size[1], _checked(options or Options()))


def _checked(options: Options) -> Options:
    hints = {"elastic": ("original", "imagecorruptions"), "rounding": ("truncate", "round")}
    for field, known in hints.items():
        value = getattr(options, field)
        if value is not None and value not in known:
            raise UnknownNameError(f"value of the option {field!r}", str(value), known)
    return options


def _check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise BadInputError(
            f"images must be a uint8 tensor (N, 3, H, W) with values 0 to 255, got {images.dtype} "
            f"{tuple(images.shape)}; multiply images in [0, 1] by 255, round and convert"
        )


def _image_ids(ids: Sequence[int | str] | Tensor | None, count: int) -> list[int | str]:
    keys: list[int | str] = (
        list(range(count)) if ids is None else [*(ids.tolist() if isinstance(ids, Tensor) else ids)]
    )
    if len(keys) != count:
        raise BadInputError(
            f"ids must name each of the {count} images once, got {len(keys)} ids; give one per image"
        )
    for key in keys:
        if not isinstance(key, (int, str, np.integer)):
            raise BadInputError(
                f"an image id must be an integer or a string, got {key!r}; use the index or path"
            )
    return keys


def draw(name: str, ids: Sequence[int | str], seed: int, setting: Setting, device: torch.device) -> Draws:
    """Return the random numbers of some images, at least one, stacked; none for a deterministic corruption."""
    function = REGISTRY[name].draw
    if function is None:
        return {}
    drawn = [function(Stream(image_key(seed, key, name, setting.severity)), setting) for key in ids]
    stacked = {
        label: array[None] if len(drawn) == 1 else np.stack([one[label] for one in drawn])
        for label, array in drawn[0].items()
    }
    return {label: torch.from_numpy(array).to(device) for label, array in stacked.items()}


def apply(name: str, images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Return the images corrupted with given random numbers.

    Args:
        name: Name of the corruption.
        images: (N, 3, H, W) uint8.
        draws: From `draw`, or made by hand in the same form.
        setting: From `make_setting`.
    """
    corrupted = REGISTRY[name].apply(images, draws, setting)
    return (
        jpeg_roundtrip(corrupted, _DISTRIBUTED_QUALITY) if setting.options.emulate_distributed else corrupted
    )
