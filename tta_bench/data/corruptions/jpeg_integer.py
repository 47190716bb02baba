# SPDX-License-Identifier: Apache-2.0
"""Bit-exact JPEG round trip in integer tensor arithmetic, batched, on any device.

Source: ITU-T T.81 (quantisation tables of Annex K); the arithmetic of libjpeg's accurate integer transform.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import torch
from torch import Tensor

_LUMA: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA: Final = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
_HALF: Final = 1 << 15


@cache
def _quantisers(quality: int, device: torch.device) -> tuple[Tensor, Tensor]:
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = [torch.tensor(base, dtype=torch.int32, device=device) for base in (_LUMA, _CHROMA)]
    luma, chroma = (((table * percent + 50) // 100).clamp(1, 255) for table in tables)
    return luma, chroma


def _descale(value: Tensor, bits: int) -> Tensor:
    return (value + (1 << (bits - 1))) >> bits


def _odd_part(a: Tensor, b: Tensor, c: Tensor, e: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the rotation of the four odd terms, shared by both directions of the transform."""
    z1, z2, z3, z4 = a + e, b + c, a + c, b + e
    z5 = 9633 * (z3 + z4)
    z1, z2, z3, z4 = -7373 * z1, -20995 * z2, z5 - 16069 * z3, z5 - 3196 * z4
    return 2446 * a + z1 + z3, 16819 * b + z2 + z4, 25172 * c + z2 + z3, 12299 * e + z1 + z4


def _forward_pass(d: tuple[Tensor, ...], dim: int, rows: bool) -> Tensor:
    bits = 11 if rows else 15
    t0, t1, t2, t3 = (d[i] + d[7 - i] for i in range(4))
    t7, t6, t5, t4 = (d[i] - d[7 - i] for i in range(4))
    t10, t13, t11, t12 = t0 + t3, t0 - t3, t1 + t2, t1 - t2
    o0, o4 = (
        ((t10 + t11) << 2, (t10 - t11) << 2) if rows else (_descale(t10 + t11, 2), _descale(t10 - t11, 2))
    )
    z = (t12 + t13) * 4433
    o2, o6 = _descale(z + 6270 * t13, bits), _descale(z - 15137 * t12, bits)
    o7, o5, o3, o1 = (_descale(term, bits) for term in _odd_part(t4, t5, t6, t7))
    return torch.stack((o0, o1, o2, o3, o4, o5, o6, o7), dim)


def _inverse_pass(d: tuple[Tensor, ...], dim: int, bits: int) -> Tensor:
    z = (d[2] + d[6]) * 4433
    t2, t3 = z - 15137 * d[6], z + 6270 * d[2]
    t0, t1 = (d[0] + d[4]) << 13, (d[0] - d[4]) << 13
    even = (t0 + t3, t1 + t2, t1 - t2, t0 - t3)
    odd = _odd_part(d[7], d[5], d[3], d[1])[::-1]
    low = [_descale(p + q, bits) for p, q in zip(even, odd, strict=True)]
    high = [_descale(p - q, bits) for p, q in zip(even, odd, strict=True)]
    return torch.stack((*low, *high[::-1]), dim)


def _code_plane(plane: Tensor, table: Tensor) -> Tensor:
    """Return a plane (N, H, W), sides multiples of 8, after transform, quantisation and their inverses."""
    count, height, width = plane.shape
    blocks = (plane - 128).view(count, height // 8, 8, width // 8, 8)
    coefficients = _forward_pass(_forward_pass(blocks.unbind(4), 4, True).unbind(2), 2, False)
    steps = table[None, None, :, None, :]
    levels = coefficients.sign() * ((coefficients.abs() + 4 * steps) // (8 * steps)) * steps
    pixels = _inverse_pass(_inverse_pass(levels.unbind(2), 2, 11).unbind(4), 4, 18)
    return (pixels + 128).clamp_(0, 255).view(count, height, width)


def _grow(plane: Tensor, dim: int, size: int) -> Tensor:
    """Return the plane with its last row or column repeated up to a size."""
    last = plane.narrow(dim, plane.shape[dim] - 1, 1)
    return torch.cat((plane, last.repeat_interleave(size - plane.shape[dim], dim)), dim)


def _to_ycc(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r, g, b = rgb.unbind(1)
    offset = (128 << 16) + _HALF - 1
    luma = (19595 * r + 38470 * g + 7471 * b + _HALF) >> 16
    blue = (-11059 * r - 21709 * g + 32768 * b + offset) >> 16
    red = (32768 * r - 27439 * g - 5329 * b + offset) >> 16
    return luma, blue, red


def _to_rgb(luma: Tensor, blue: Tensor, red: Tensor) -> Tensor:
    blue, red = blue - 128, red - 128
    r = luma + ((91881 * red + _HALF) >> 16)
    g = luma + ((-22554 * blue - 46802 * red + _HALF) >> 16)
    b = luma + ((116130 * blue + _HALF) >> 16)
    return torch.stack((r, g, b), 1).clamp_(0, 255).to(torch.uint8)


def _halve(plane: Tensor) -> Tensor:
    """Return 2 x 2 means, rounded down and up in turn along a row; sides must be even."""
    total = plane[:, ::2, ::2] + plane[:, ::2, 1::2] + plane[:, 1::2, ::2] + plane[:, 1::2, 1::2]
    bias = 1 + torch.arange(total.shape[2], device=plane.device, dtype=plane.dtype) % 2
    return (total + bias) >> 2


def _double(plane: Tensor, height: int, width: int) -> Tensor:
    """Return the chroma plane up-sampled with weights 3 and 1, cut to (height, width)."""
    above, below = (
        torch.cat(pair, 1) for pair in ((plane[:, :1], plane[:, :-1]), (plane[:, 1:], plane[:, -1:]))
    )
    tall = torch.stack((3 * plane + above, 3 * plane + below), 2).flatten(1, 2)
    left, right = (
        torch.cat(pair, 2) for pair in ((tall[..., :1], tall[..., :-1]), (tall[..., 1:], tall[..., -1:]))
    )
    wide = torch.stack(((3 * tall + left + 8) >> 4, (3 * tall + right + 7) >> 4), 3).flatten(2, 3)
    return wide[:, :height, :width]


def _code_chroma(plane: Tensor, table: Tensor, height: int, width: int) -> Tensor:
    halved = _halve(_grow(plane, 1, height + height % 2))
    coded = _code_plane(_grow(halved, 1, -(-halved.shape[1] // 8) * 8), table)
    return _double(coded[:, : (height + 1) // 2, : (width + 1) // 2], height, width)


def jpeg_integer(images: Tensor, quality: int) -> Tensor:
    """Return the images after a JPEG round trip, bit for bit what libjpeg gives.

    Args:
        images: (N, 3, H, W) uint8, on any device.
        quality: 1 to 100.
    """
    height, width = images.shape[2:]
    luma_table, chroma_table = _quantisers(quality, images.device)
    luma, blue, red = _to_ycc(_grow(images.int(), 3, -(-width // 16) * 16))
    coded = _code_plane(_grow(luma, 1, -(-height // 16) * 16), luma_table)[:, :height, :width]
    return _to_rgb(coded, *(_code_chroma(plane, chroma_table, height, width) for plane in (blue, red)))
