# SPDX-License-Identifier: Apache-2.0
"""Generated frost textures: ice needles with the statistics of photographs of frozen windows.

No photograph is shipped. A texture starts as streaks along three directions, sixty degrees apart, at several
lengths; it is then given, in turns until both hold, the power spectrum and the histogram of its style.
"""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import fft

from tta_bench.data.corruptions.rng import Stream, image_key

Plane = npt.NDArray[np.float64]
Texture = npt.NDArray[np.uint8]

_ROUNDS: Final = 4
_BROAD_FREQUENCY: Final = 0.004
_NEEDLE_CYCLES: Final = (6.0, 18.0, 54.0)
_RANKS: Final = (0.01, 0.10, 0.50, 0.90, 0.99)
_SEED: Final = 20190329


class Style(NamedTuple):
    """Statistics of one kind of frost.

    Attributes:
        size: Height and width in pixels.
        weight: How often the style is drawn.
        mean: Mean of R, G and B in levels.
        deviation: Standard deviation of R, G and B in levels.
        ranks: Luminance at 1, 10, 50, 90 and 99 %.
        exponent: Fall of the power with frequency.
        cutoff: Frequency, in cycles per pixel, above which the power falls off like a Gaussian.
        broad: Share of the variance in features wider than about 150 pixels.
        red_blue: Correlation of the red and the blue channel.
    """

    size: tuple[int, int]
    weight: float
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    ranks: tuple[float, float, float, float, float]
    exponent: float
    cutoff: float
    broad: float
    red_blue: float


STYLES: Final = (
    Style((600, 900), 0.2, (78, 149, 166), (27, 17, 15), (97, 109, 129, 155, 177), 1.67, 10.0, 0.64, 0.57),
    Style((320, 560), 0.4, (201, 205, 215), (21, 22, 23), (141, 177, 210, 231, 245), 1.17, 0.264, 0.43, 0.99),
    Style((352, 528), 0.2, (138, 153, 165), (29, 29, 30), (82, 116, 152, 186, 234), 0.47, 0.225, 0.35, 0.99),
    Style((500, 660), 0.2, (112, 123, 135), (44, 43, 42), (45, 71, 119, 183, 238), 1.55, 0.38, 0.285, 0.99),
)


class _Frequencies(NamedTuple):
    radius: Plane
    direction: Plane


def _frequencies(height: int, width: int) -> _Frequencies:
    rows, columns = fft.fftfreq(height)[:, None], fft.rfftfreq(width)[None]
    radius = np.hypot(rows, columns)
    radius[0, 0] = 1.0
    return _Frequencies(radius, np.arctan2(rows, columns))


def _needles(stream: Stream, style: Style, grid: _Frequencies) -> Plane:
    """Return streaks (H, W) along three directions, the strongest at each pixel, over three lengths."""
    height, width = style.size
    total = np.zeros(style.size)
    turn = float(stream.uniform(0, np.pi))
    for cycles in _NEEDLE_CYCLES:
        layers = []
        for k in range(3):
            noise = fft.rfft2(stream.normal(height, width).astype(np.float64))
            away = np.cos(grid.direction - turn - k * np.pi / 3)
            band = np.exp(-0.5 * (np.log(grid.radius * height / cycles) / 0.6) ** 2)
            layers.append(fft.irfft2(noise * band * away**24, s=style.size))
        strongest = np.maximum.reduce(layers)
        total += (strongest - strongest.mean()) / strongest.std()
    return total


def _quantiles(style: Style, count: int) -> Plane:
    """Return `count` sorted luminances with the percentiles of the style, zero mean and unit deviation."""
    low, high = (
        style.ranks[0] - 0.3 * (style.ranks[1] - style.ranks[0]),
        style.ranks[4] + 0.3 * (style.ranks[4] - style.ranks[3]),
    )
    values = np.interp(
        (np.arange(count) + 0.5) / count, (0.0, *_RANKS, 1.0), (low, *style.ranks, min(high, 255.0))
    )
    return np.asarray((values - values.mean()) / values.std())


def _with_histogram(field: Plane, sorted_values: Plane) -> Plane:
    result = np.empty(field.size)
    result[np.argsort(field, axis=None)] = sorted_values
    return result.reshape(field.shape)


def _power(style: Style, grid: _Frequencies) -> Plane:
    """Return the wanted power (H, W // 2 + 1): a power law with a cut-off, and broad features."""
    doubled = np.full(grid.radius.shape, 2.0)  # a real transform stores one of each pair of conjugates
    doubled[:, 0] = 1.0
    fine = grid.radius**-style.exponent * np.exp(-((grid.radius / style.cutoff) ** 2))
    broad = np.exp(-((grid.radius / _BROAD_FREQUENCY) ** 2))
    fine[0, 0] = broad[0, 0] = 0
    return np.asarray(
        (1 - style.broad) * fine / (fine * doubled).sum() + style.broad * broad / (broad * doubled).sum()
    )


def _with_spectrum(field: Plane, grid: _Frequencies, power: Plane) -> Plane:
    """Return the field with its mean power per ring of frequencies as wanted; phases and directions stay."""
    spectrum = fft.rfft2(field)
    rings = np.rint(np.log2(grid.radius * 2048) * 4).astype(np.int64).clip(min=0)
    size = np.bincount(rings.ravel()).clip(min=1)
    present = np.bincount(rings.ravel(), (np.abs(spectrum) ** 2).ravel()) / size
    spectrum *= np.sqrt(power / present[rings].clip(min=1e-12))
    return np.asarray(fft.irfft2(spectrum, s=field.shape))


def _shape(field: Plane, style: Style, grid: _Frequencies) -> Plane:
    ranks, power = _quantiles(style, field.size), _power(style, grid)
    for _ in range(_ROUNDS):
        field = _with_histogram(_with_spectrum(field, grid, power), ranks)
    return field


@cache
def generated_textures() -> tuple[Texture, ...]:
    """Return one texture (H, W, 3) uint8 per style; always the same ones."""
    return tuple(
        _texture(Stream(image_key(_SEED, i, "frost texture", 0)), style) for i, style in enumerate(STYLES)
    )


def _texture(stream: Stream, style: Style) -> Texture:
    grid = _frequencies(*style.size)
    luminance = _shape(_needles(stream, style, grid), style, grid)
    planes = [luminance] * 3
    if style.red_blue < 0.9:
        own = _shape(_needles(stream, style, grid), style, grid)
        planes[0] = style.red_blue * luminance + np.sqrt(1 - style.red_blue**2) * own
    coloured = [mean + sd * p for p, mean, sd in zip(planes, style.mean, style.deviation, strict=True)]
    return np.stack(coloured, 2).round().clip(0, 255).astype(np.uint8)
