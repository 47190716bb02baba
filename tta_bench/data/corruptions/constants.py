# SPDX-License-Identifier: Apache-2.0
"""Names, groups and severity constants of the common corruptions.

Each table gives five entries, severities 1 to 5, per scale. ``imagenet`` constants act on images of any size
and were tuned on 224 x 224; ``cifar`` constants were tuned on 32 x 32; ``tiny`` constants on 64 x 64.

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations,
arXiv:1903.12261, and the published generators of ImageNet-C, CIFAR-10-C and Tiny-ImageNet-C.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

Scale: TypeAlias = Literal["imagenet", "cifar", "tiny"]
Row: TypeAlias = tuple[float, ...]
Table: TypeAlias = tuple[Row, Row, Row, Row, Row]

SCALES: Final[tuple[Scale, ...]] = ("imagenet", "cifar", "tiny")
SEVERITIES: Final = (1, 2, 3, 4, 5)
MIN_SIZE: Final = 32

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
EXTRA: Final[tuple[str, ...]] = GROUPS["extra"]
CORRUPTIONS: Final[tuple[str, ...]] = tuple(
    name for group, names in GROUPS.items() if group != "extra" for name in names
)


def _single(*values: float) -> Table:
    one, two, three, four, five = values
    return (one,), (two,), (three,), (four,), (five,)


_GAUSSIAN_NOISE: dict[Scale, Table] = {
    "imagenet": _single(0.08, 0.12, 0.18, 0.26, 0.38),
    "cifar": _single(0.04, 0.06, 0.08, 0.09, 0.10),
    "tiny": _single(0.04, 0.08, 0.12, 0.15, 0.18),
}
_SHOT_NOISE: dict[Scale, Table] = {
    "imagenet": _single(60, 25, 12, 5, 3),
    "cifar": _single(500, 250, 100, 75, 50),
    "tiny": _single(250, 100, 50, 30, 15),
}
_IMPULSE_NOISE: dict[Scale, Table] = {
    "imagenet": _single(0.03, 0.06, 0.09, 0.17, 0.27),
    "cifar": _single(0.01, 0.02, 0.03, 0.05, 0.07),
    "tiny": _single(0.01, 0.02, 0.05, 0.08, 0.14),
}
_SPECKLE_NOISE: dict[Scale, Table] = {
    "imagenet": _single(0.15, 0.2, 0.35, 0.45, 0.6),
    "cifar": _single(0.06, 0.1, 0.12, 0.16, 0.2),
    "tiny": _single(0.15, 0.2, 0.25, 0.3, 0.35),
}
_DEFOCUS_BLUR: dict[Scale, Table] = {  # disk radius, sd of the kernel's own blur
    "imagenet": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "cifar": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "tiny": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
}
_GLASS_BLUR: dict[Scale, Table] = {  # sd, largest displacement, sweeps
    "imagenet": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "cifar": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "tiny": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
}
_MOTION_BLUR: dict[Scale, Table] = {  # radius, sd
    "imagenet": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "cifar": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "tiny": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
}
_ZOOM_SMALL: Table = ((7, 0.01), (12, 0.01), (16, 0.01), (21, 0.01), (26, 0.01))
_ZOOM_BLUR: dict[Scale, Table] = {  # number of factors, step
    "imagenet": ((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)),
    "cifar": _ZOOM_SMALL,
    "tiny": _ZOOM_SMALL,
}
_SNOW: dict[Scale, Table] = {  # mean, sd, zoom, threshold, blur radius, blur sd, share of the image
    "imagenet": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "cifar": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "tiny": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
    ),
}
_FROST: dict[Scale, Table] = {  # weight of the image, weight of the texture
    "imagenet": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    "cifar": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "tiny": ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
}
_FOG: dict[Scale, Table] = {  # strength, decay of the roughness
    "imagenet": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "cifar": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "tiny": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
}
_BRIGHTNESS: dict[Scale, Table] = {
    "imagenet": _single(0.1, 0.2, 0.3, 0.4, 0.5),
    "cifar": _single(0.05, 0.1, 0.15, 0.2, 0.3),
    "tiny": _single(0.1, 0.2, 0.3, 0.4, 0.5),
}
_CONTRAST: dict[Scale, Table] = {
    "imagenet": _single(0.4, 0.3, 0.2, 0.1, 0.05),
    "cifar": _single(0.75, 0.5, 0.4, 0.3, 0.15),
    "tiny": _single(0.4, 0.3, 0.2, 0.1, 0.05),
}
_ELASTIC_TRANSFORM: dict[Scale, Table] = {  # displacement, sd, affine jitter: all times the nominal size
    "imagenet": ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    "cifar": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    "tiny": ((0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
}
ELASTIC_LOCAL_ALPHA: Final = (12.5, 16.25, 21.25, 25.0, 30.0)
_PIXELATE: dict[Scale, Table] = {
    "imagenet": _single(0.6, 0.5, 0.4, 0.3, 0.25),
    "cifar": _single(0.95, 0.9, 0.85, 0.75, 0.65),
    "tiny": _single(0.9, 0.8, 0.7, 0.6, 0.5),
}
_JPEG_COMPRESSION: dict[Scale, Table] = {
    "imagenet": _single(25, 18, 15, 10, 7),
    "cifar": _single(80, 65, 58, 50, 40),
    "tiny": _single(65, 58, 50, 40, 25),
}
_GAUSSIAN_BLUR: dict[Scale, Table] = {
    "imagenet": _single(1, 2, 3, 4, 6),
    "cifar": _single(0.4, 0.6, 0.7, 0.8, 1),
    "tiny": _single(0.5, 0.75, 1, 1.25, 1.5),
}
_SPATTER: dict[Scale, Table] = {  # mean, sd, blur sd, threshold, strength, mud (1) or water (0)
    "imagenet": (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    "cifar": (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    "tiny": (
        (0.62, 0.1, 0.7, 0.7, 0.6, 0),
        (0.65, 0.1, 0.8, 0.7, 0.6, 0),
        (0.65, 0.3, 1, 0.69, 0.6, 0),
        (0.65, 0.1, 0.7, 0.68, 0.6, 1),
        (0.65, 0.1, 0.5, 0.67, 0.6, 1),
    ),
}
_SATURATE: dict[Scale, Table] = {  # gain and offset of the saturation
    "imagenet": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    "cifar": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    "tiny": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
}

CONSTANTS: Final[dict[str, dict[Scale, Table]]] = {
    "gaussian_noise": _GAUSSIAN_NOISE,
    "shot_noise": _SHOT_NOISE,
    "impulse_noise": _IMPULSE_NOISE,
    "defocus_blur": _DEFOCUS_BLUR,
    "glass_blur": _GLASS_BLUR,
    "motion_blur": _MOTION_BLUR,
    "zoom_blur": _ZOOM_BLUR,
    "snow": _SNOW,
    "frost": _FROST,
    "fog": _FOG,
    "brightness": _BRIGHTNESS,
    "contrast": _CONTRAST,
    "elastic_transform": _ELASTIC_TRANSFORM,
    "pixelate": _PIXELATE,
    "jpeg_compression": _JPEG_COMPRESSION,
    "speckle_noise": _SPECKLE_NOISE,
    "gaussian_blur": _GAUSSIAN_BLUR,
    "spatter": _SPATTER,
    "saturate": _SATURATE,
}
