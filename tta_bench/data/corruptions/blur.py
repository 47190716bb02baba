# SPDX-License-Identifier: Apache-2.0
"""Gaussian blur."""

from __future__ import annotations

from torch import Tensor

from tta_bench.data.corruptions.base import Draws, Setting, to_bytes
from tta_bench.data.corruptions.filters import gaussian_filter


def gaussian_blur(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Smooth every channel; the border repeats the edge."""
    return to_bytes(gaussian_filter(images.float(), setting.constants[0]))
