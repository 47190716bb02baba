# SPDX-License-Identifier: Apache-2.0
"""Snow: a layer of enlarged, thresholded, smeared noise over a whitened image."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from tta_bench.data.corruptions.base import FLOOR_BIAS, Arrays, Draws, Setting, to_bytes
from tta_bench.data.corruptions.motion import motion_filter, smear
from tta_bench.data.corruptions.rng import Stream
from tta_bench.data.corruptions.zoom import centre_part, cut, enlarge

_LUMA: Final = (0.299, 0.587, 0.114)


def draw_snow(stream: Stream, setting: Setting) -> Arrays:
    """Draw the part of the noise field that the enlargement shows, and the direction of the fall."""
    mean, deviation, zoom = setting.constants[:3]
    rows, columns = centre_part(setting.height, zoom), centre_part(setting.width, zoom)
    noise = stream.normal(rows.stop - rows.start, columns.stop - columns.start)
    return {"noise": noise * deviation + mean, "angle_deg": stream.uniform(-135, -45)}


def snow_layer(noise: Tensor, angles_deg: list[float], setting: Setting) -> Tensor:
    """Return the flakes (N, 1, H, W) in whole levels.

    Args:
        noise: (N, h, w), the central part of the noise field.
        angles_deg: N directions.
        setting: The setting of `snow`.
    """
    _, _, zoom, threshold, radius, sigma, _ = setting.constants
    flakes = enlarge(noise[:, None], zoom)
    original = setting.scale != "imagenet"
    if original:
        flakes = cut(flakes, setting)
    flakes = torch.threshold(flakes, threshold, 0).clamp_(0, 1).mul_(255)
    if original:
        flakes = flakes.add_(FLOOR_BIAS).floor_()
    size = None if original else (flakes.shape[2], flakes.shape[3])
    taps = [smear(angle, int(radius), sigma, size) for angle in angles_deg]
    return cut(motion_filter(flakes, taps), setting).clamp(0, 255).round_()


def snow(images: Tensor, draws: Draws, setting: Setting) -> Tensor:
    """Whiten the image and add the flakes twice, once turned by half a turn."""
    share = setting.constants[-1]
    flakes = snow_layer(draws["noise"], draws["angle_deg"].tolist(), setting)
    flakes = flakes + flakes.flip(2, 3)
    levels = images.float()
    white = (levels[:, :1] * (1.5 * _LUMA[0])).add_(127.5)
    for channel in (1, 2):
        white.add_(levels[:, channel : channel + 1], alpha=1.5 * _LUMA[channel])
    whitened = torch.maximum(levels, white).mul_(1 - share)
    return to_bytes(whitened.add_(levels, alpha=share).add_(flakes))
