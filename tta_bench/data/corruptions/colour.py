# SPDX-License-Identifier: Apache-2.0
"""Brightness, contrast and saturation."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from tta_bench.data.corruptions.base import FLOOR_BIAS, Draws, Setting, to_bytes


@cache
def _raised_values(amount: float, device: torch.device) -> Tensor:
    """Return the raised value, in levels, for each of the 256 values.

    A sum that is a whole number of levels may fall just below it in float64, and then truncation takes one
    level; the entry is lowered where that happens so that float32 arithmetic falls as well.
    """
    raised = np.minimum(np.arange(256) / 255 + amount, 1) * 255
    just_below = (np.ceil(raised) - raised < 1e-9) & (np.ceil(raised) > raised)
    return torch.as_tensor(raised - 2 * FLOOR_BIAS * just_below).to(device, torch.float32)


def brightness(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Raise the HSV value by a constant; hue and saturation stay."""
    value = images.amax(1, keepdim=True)
    table = _raised_values(setting.constants[0], images.device)
    raised = table.index_select(0, value.reshape(-1).int()).view(value.shape)
    ratio = raised / value.clamp(min=1)
    # A black pixel has no saturation: it turns into the grey of the raised value.
    return to_bytes(images.float().mul_(ratio).add_(raised.mul_(value == 0)))


def contrast(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Shrink the distance of each channel to its mean over the image."""
    factor = setting.constants[0]
    total = images.sum(3, keepdim=True, dtype=torch.int32).sum(2, keepdim=True)
    shift = (total.double() * ((1 - factor) / (setting.height * setting.width))).float()
    return to_bytes(images.float().mul_(factor).add_(shift))


def saturate(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Map the HSV saturation by a gain and an offset; hue and value stay.

    A grey pixel has hue 0, red: an offset tints it.
    """
    gain, offset = setting.constants
    value = images.amax(1, keepdim=True).float()
    chroma = value - images.amin(1, keepdim=True)
    wanted = (chroma * gain).add_(value * offset).minimum(value)
    levels = value - (value - images) * (wanted / chroma.clamp(min=1))
    if offset:
        tint = wanted.mul_(chroma == 0)
        levels[:, 1:] -= tint
    return to_bytes(levels)
