# SPDX-License-Identifier: Apache-2.0
"""Golden random draws of the corruptions, in the form that our corruptions take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from tta_bench.data.corruptions.base import Arrays, Draws, Setting
from tta_bench.data.corruptions.fog import haze_map, map_size
from tta_bench.data.corruptions.frost import fit_texture
from tta_bench.data.corruptions.spatter import spatter_layer
from tta_bench.data.corruptions.zoom import centre_part
from tta_bench.parity.folder import entry

Given: TypeAlias = Mapping[str, npt.NDArray[Any]]

FROST_TEXTURE: Final = "frost_texture_rgb"
_FOG_WIDTH: Final = 100.0


def injected_draws(name: str, given: Given, setting: Setting) -> Draws:
    """Return the draws of one image, stacked as a batch of one.

    Args:
        name: Name of the corruption.
        given: The golden arrays of the case by their own names; for ``frost`` also the texture.
        setting: Setting of the case.

    Raises:
        BadInputError: If an array is missing.
    """
    arrays = _FORMS[name](given, setting)
    return {label: torch.as_tensor(np.array(value, order="C"))[None] for label, value in arrays.items()}


def can_inject(name: str) -> bool:
    """Say whether the draws of a corruption can be given."""
    return name in _FORMS


def _motion(given: Given, setting: Setting) -> Arrays:
    return {"angle_deg": entry(given, "angle_deg", "a motion_blur case")}


def _glass(given: Given, setting: Setting) -> Arrays:
    sweeps = int(setting.constants[2])
    return {"neighbours": entry(given, "dxdy", "a glass_blur case").reshape(sweeps, -1, 2)}


def _elastic(given: Given, setting: Setting) -> Arrays:
    noise = [entry(given, name, "an elastic_transform case") for name in ("noise_dx", "noise_dy")]
    drawn: Arrays = {"noise": np.stack(noise).astype(np.float32)}
    return drawn | ({"jitter": given["affine_jitter"]} if "affine_jitter" in given else {})


def _fog(given: Given, setting: Setting) -> Arrays:
    decay, levels = setting.constants[1], map_size(setting.height, setting.width).bit_length() - 1
    blocks = [
        entry(given, f"draw{i:02d}", "a fog case").ravel() / (_FOG_WIDTH / decay ** (i // 3))
        for i in range(3 * levels)
    ]
    haze = haze_map(np.concatenate(blocks).astype(np.float32), decay, 1 << levels)
    return {"haze": haze[: setting.height, : setting.width]}


def _snow(given: Given, setting: Setting) -> Arrays:
    zoom = setting.constants[2]
    rows, columns = centre_part(setting.height, zoom), centre_part(setting.width, zoom)
    part = entry(given, "noise", "a snow case")[rows, columns]
    return {"noise": part.astype(np.float32), "angle_deg": entry(given, "angle_deg", "a snow case")}


def _spatter(given: Given, setting: Setting) -> Arrays:
    return {"cover": spatter_layer(entry(given, "noise", "a spatter case"), setting)}


def _frost(given: Given, setting: Setting) -> Arrays:
    _, top, left = entry(given, "idx_row_col", "a frost case").tolist()
    fitted = fit_texture(entry(given, FROST_TEXTURE, "a frost case"), setting)
    return {"texture": fitted[:, top : top + setting.height, left : left + setting.width]}


_FORMS: Final = {
    "motion_blur": _motion,
    "glass_blur": _glass,
    "elastic_transform": _elastic,
    "fog": _fog,
    "snow": _snow,
    "spatter": _spatter,
    "frost": _frost,
}
