# SPDX-License-Identifier: Apache-2.0
"""The base of every corruption: its setting, its two halves, and the step back to 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy.typing as npt
import torch
from torch import Tensor

from tta_bench.data.corruptions.constants import Row, Scale
from tta_bench.data.corruptions.rng import Stream

FLOOR_BIAS: Final = 1e-3
"""Levels added before truncation: whole levels must not fall by one through float32 rounding."""


@dataclass(frozen=True)
class Options:
    """Choices between published variants; the defaults follow the scale.

    Attributes:
        elastic: ``"original"``: a random affine map and a warp, with the constants of the first benchmark (large
            smooth warps at severities 1 and 2). ``"imagecorruptions"``: the local warp for images of any size,
            growing with severity. None: the latter at ``imagenet`` scale, the former elsewhere.
        rounding: How the motion-blurred 8-bit layer of ``motion_blur`` is made: ``"truncate"`` or ``"round"``.
            None: truncated at ``imagenet`` scale, rounded elsewhere, as the published files are.
        emulate_distributed: Save the result as JPEG of quality 85 (4:2:0) and read it back, as the files of the
            distributed ImageNet-C were.
        frost_dir: Folder of frost photographs (PNG or JPEG) to use for ``frost`` instead of generated textures.
    """

    elastic: Literal["original", "imagecorruptions"] | None = None
    rounding: Literal["truncate", "round"] | None = None
    emulate_distributed: bool = False
    frost_dir: Path | None = None


class Setting(NamedTuple):
    """One corruption at one severity, for images of one size."""

    constants: Row
    severity: int
    scale: Scale
    height: int
    width: int
    options: Options


Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
Draws: TypeAlias = dict[str, Tensor]


class Corruption(NamedTuple):
    """One corruption, split into its randomness and its arithmetic.

    Attributes:
        apply: Maps uint8 images (N, 3, H, W), the stacked draws and the setting to uint8 images.
        draw: Maps the stream of one image and the setting to named arrays; None where nothing is random.
        one_by_one: Whether `apply` takes the images one by one on the CPU, so that parts which fit the cache
            gain nothing.
    """

    apply: Callable[[Tensor, Draws, Setting], Tensor]
    draw: Callable[[Stream, Setting], Arrays] | None = None
    one_by_one: bool = False


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Return the tensors stacked along a new first axis; a single one is not copied."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))


def to_bytes(levels: Tensor, bias: float = FLOOR_BIAS) -> Tensor:
    """Return levels (float, 0 to 255 wanted) clipped and truncated to uint8; overwrites its argument.

    Truncation instead of rounding is part of the benchmark; it darkens images by half a level.

    Args:
        levels: Any shape, floating.
        bias: Levels to add before truncation.
    """
    # By way of int16 the conversion is vectorised on the CPU.
    return levels.add_(bias).clamp_(0, 255).to(torch.int16).to(torch.uint8)
