# SPDX-License-Identifier: Apache-2.0
"""Replay of the corruption goldens: deterministic outputs, outputs with injected draws, and statistics."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from tta_bench.data.corruptions.base import Draws, Setting
from tta_bench.data.corruptions.constants import Scale
from tta_bench.data.corruptions.engine import apply, corrupt, make_setting
from tta_bench.data.corruptions.fog import haze_map, map_size
from tta_bench.data.corruptions.frost import fit_texture
from tta_bench.data.corruptions.spatter import spatter_layer
from tta_bench.data.corruptions.zoom import centre_part
from tta_bench.parity.result import CaseResult

FAMILY: Final = "corruptions"
DETERMINISTIC, INJECTED, STATISTICS = "deterministic.npz", "injected.npz", "stochastic_stats.json"

_FOG_WIDTH: Final = 100.0
_SPATTER_LEVELS, _SPATTER_SHARE = 2, 0.98
_BANDS, _BAND_WIDTH = 8, 0.0625
_STANDARD_ERRORS, _LEVEL_SLACK, _LOG_SLACK = 4.0, 0.1, 0.01
_FROST_MEAN_SLACK, _FROST_SD_SLACK = 6.0, 0.15
_FIRST_LOG, _FIRST_SD, _CHANGE = 7, 3, 6

Array = npt.NDArray[Any]


class Bound(NamedTuple):
    """Largest and mean absolute difference, in levels, that a case may have."""

    most: float
    mean: float


_DETERMINISTIC_BOUNDS: Final = {
    "defocus_blur": Bound(1, 0.02),
    "zoom_blur": Bound(1, 0.02),
    "gaussian_blur": Bound(1, 0.02),
    "brightness": Bound(1, 0.06),
    "contrast": Bound(1, 0.06),
    "saturate": Bound(1, 0.2),
    "pixelate": Bound(0, 0),
    "jpeg_compression": Bound(0, 0),
}
_INJECTED_BOUNDS: Final = {
    "motion_blur": Bound(1, 0.01),
    "glass_blur": Bound(1, 0.01),
    "elastic_transform": Bound(1, 0.01),
    "fog": Bound(1, 0.01),
    "snow": Bound(1, 0.01),
    "frost": Bound(1, 0.03),
}
_CIFAR_GLASS: Final = Bound(2, 0.1)


def cases(folder: Path, method: str | None = None) -> Iterator[CaseResult]:
    """Replay the goldens of a folder, case by case.

    Args:
        folder: Holds any of ``deterministic.npz``, ``injected.npz`` and ``stochastic_stats.json``.
        method: Only this corruption; None for all.
    """
    if (folder / DETERMINISTIC).exists():
        yield from _deterministic_cases(folder / DETERMINISTIC, method)
    if (folder / INJECTED).exists():
        yield from _injected_cases(folder / INJECTED, method)
    if (folder / STATISTICS).exists():
        yield from _statistics_cases(folder, method)


def _scale(label: str) -> Scale:
    return "cifar" if label == "cifar" else "imagenet"


def _to_batch(picture: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]


def _decode(stored: Array) -> Array:
    with Image.open(io.BytesIO(stored.tobytes())) as picture:
        return np.asarray(picture.convert("RGB"))


def _judge(name: str, case: str, ours: Tensor, golden: Array, bound: Bound) -> CaseResult:
    difference = np.abs(ours[0].permute(1, 2, 0).numpy().astype(np.int64) - golden)
    mean, most = float(difference.mean()), float(difference.max())
    passed = most <= bound.most and mean <= bound.mean
    note = f"levels; mean {mean:.4f}, allowed {bound.mean:g}"
    return CaseResult(FAMILY, name, case, most, bound.most, passed, note)


def _deterministic_cases(path: Path, method: str | None) -> Iterator[CaseResult]:
    with np.load(path) as stored:
        for key in stored.files:
            parts = key.removesuffix(".png").split("/")
            if len(parts) != 4 or method not in (None, parts[1]):
                continue
            scale, name, severity, image = parts
            picture = _to_batch(_decode(stored[f"img_{image}.png"]))
            ours = corrupt(picture, name, int(severity), 0, scale=_scale(scale))
            yield _judge(name, "/".join(parts), ours, _decode(stored[key]), _DETERMINISTIC_BOUNDS[name])


def _injected_cases(path: Path, method: str | None) -> Iterator[CaseResult]:
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored.files}
    for key in arrays:
        parts = key.split("/")
        if len(parts) != 4 or parts[3] != "out" or method not in (None, parts[1]):
            continue
        label, name, severity, _ = parts
        picture = _to_batch(arrays["img_k32a" if label == "cifar" else "img_a64"])
        setting = make_setting(name, int(severity), tuple(picture.shape[2:]), _scale(label))
        prefix = key.removesuffix("out")
        given = {
            other.removeprefix(prefix): value for other, value in arrays.items() if other.startswith(prefix)
        }
        given["texture_rgb"] = arrays.get("frost_texture_rgb", np.zeros((0, 0, 3), np.uint8))
        ours = apply(name, picture, injected_draws(name, given, setting), setting)
        case = "/".join(parts[:3])
        if name == "spatter":
            yield _judge_spatter(case, ours, arrays[key])
        else:
            bound = _CIFAR_GLASS if name == "glass_blur" and label == "cifar" else _INJECTED_BOUNDS[name]
            yield _judge(name, case, ours, arrays[key], bound)


def _judge_spatter(case: str, ours: Tensor, golden: Array) -> CaseResult:
    difference = np.abs(ours[0].permute(1, 2, 0).numpy().astype(np.int64) - golden).max(2)
    off = float((difference > _SPATTER_LEVELS).mean())
    allowed = 1 - _SPATTER_SHARE
    note = f"share of pixels more than {_SPATTER_LEVELS} levels off"
    return CaseResult(FAMILY, "spatter", case, off, allowed, off <= allowed, note)


def injected_draws(name: str, given: dict[str, Array], setting: Setting) -> Draws:
    """Return golden draws of one picture in the form that the corruption takes.

    Args:
        name: Name of the corruption.
        given: The golden arrays of the case by their own names; for ``frost`` also ``texture_rgb``.
        setting: Setting of the case.
    """
    arrays: dict[str, Array] = _INJECTORS[name](given, setting)
    return {label: torch.as_tensor(np.array(value, order="C"))[None] for label, value in arrays.items()}


def _inject_motion(given: dict[str, Array], setting: Setting) -> dict[str, Array]:
    return {"angle_deg": given["angle_deg"]}


def _inject_glass(given: dict[str, Array], setting: Setting) -> dict[str, Array]:
    sweeps = int(setting.constants[2])
    return {"neighbours": given["dxdy"].reshape(sweeps, -1, 2)}


def _inject_elastic(given: dict[str, Array], setting: Setting) -> dict[str, Array]:
    drawn = {"noise": np.stack((given["noise_dx"], given["noise_dy"])).astype(np.float32)}
    return drawn | ({"jitter": given["affine_jitter"]} if "affine_jitter" in given else {})


def _inject_fog(given: dict[str, Array], setting: Setting) -> dict[str, Array]:
    decay, levels = setting.constants[1], map_size(setting.height, setting.width).bit_length() - 1
    blocks = [given[f"draw{i:02d}"].ravel() / (_FOG_WIDTH / decay ** (i // 3)) for i in range(3 * levels)]
    haze = haze_map(np.concatenate(blocks).astype(np.float32), decay, 1 << levels)
    return {"haze": haze[: setting.height, : setting.width]}


def _inject_snow(given: dict[str, Array], setting: Setting) -> dict[str, Array]:
    zoom = setting.constants[2]
    part = given["noise"][centre_part(setting.height, zoom), centre_part(setting.width, zoom)]
    return {"noise": part.astype(np.float32), "angle_deg": given["angle_deg"]}


def _inject_spatter(given: dict[str, Array], setting: Setting) -> dict[str, Array]:
    return {"cover": spatter_layer(given["noise"], setting)}


def _inject_frost(given: dict[str, Array], setting: Setting) -> dict[str, Array]:
    _, top, left = given["idx_row_col"].tolist()
    fitted = fit_texture(given["texture_rgb"], setting)
    return {"texture": fitted[:, top : top + setting.height, left : left + setting.width]}


_INJECTORS: Final = {
    "motion_blur": _inject_motion,
    "glass_blur": _inject_glass,
    "elastic_transform": _inject_elastic,
    "fog": _inject_fog,
    "snow": _inject_snow,
    "spatter": _inject_spatter,
    "frost": _inject_frost,
}


def picture_features(outputs: Tensor, clean: Tensor) -> npt.NDArray[np.float64]:
    """Return the 15 statistics of each corrupted picture.

    Means and deviations of the channels, mean absolute change, and the logarithm of the mean power in eight
    bands of frequency of the grey picture.

    Args:
        outputs: (N, 3, H, W) uint8.
        clean: (1, 3, H, W) uint8.

    Returns:
        (N, 15) float64.
    """
    x = outputs.double()
    grey = x.mean(1)
    grey = grey - grey.mean((1, 2), keepdim=True)
    height, width = grey.shape[1:]
    power = torch.fft.fft2(grey).abs().square() / (height * width)
    radius = torch.hypot(
        torch.fft.fftfreq(height, dtype=torch.float64)[:, None], torch.fft.fftfreq(width, dtype=torch.float64)
    )
    bands = (radius / _BAND_WIDTH).long().clamp_(max=_BANDS - 1)
    bands[0, 0] = -1
    energy = torch.stack([power[:, bands == band].mean(1) for band in range(_BANDS)], 1)
    change = (x - clean.double()).abs().mean((1, 2, 3))
    deviations = x.std((2, 3), correction=0)
    return torch.cat((x.mean((2, 3)), deviations, change[:, None], (energy + 1e-3).log10()), 1).numpy()


def _statistics_cases(folder: Path, method: str | None) -> Iterator[CaseResult]:
    reference = json.loads((folder / STATISTICS).read_text())
    count = int(reference["n_seeds"])
    with np.load(folder / DETERMINISTIC) as stored:
        pictures = {key[4:-4]: _decode(stored[key]) for key in stored.files if key.startswith("img_")}
    for case, entry in reference["entries"].items():
        label, name, severity, image = case.split("/")
        if method not in (None, name):
            continue
        clean = _to_batch(pictures[image])
        outputs = corrupt(clean.expand(count, -1, -1, -1), name, int(severity), 0, scale=_scale(label))
        features = picture_features(outputs, clean)
        yield _judge_statistics(name, case, features, np.array(entry["mean"]), np.array(entry["se"]))


def _judge_statistics(name: str, case: str, features: Array, mean: Array, error: Array) -> CaseResult:
    own_error = features.std(0, ddof=1) / np.sqrt(len(features))
    difference = np.abs(features.mean(0) - mean)
    slack = np.full(len(mean), _LEVEL_SLACK)
    slack[_FIRST_LOG:] = _LOG_SLACK
    note = f"largest of {len(mean)} statistics over {len(features)} seeds, in units of its tolerance"
    if name == "frost":
        # The reference blends photographs, ours is generated: only the coarse statistics are comparable.
        slack[:_FIRST_SD] = slack[_CHANGE] = _FROST_MEAN_SLACK
        slack[_FIRST_SD:_CHANGE] = _FROST_SD_SLACK * mean[_FIRST_SD:_CHANGE]
        slack[_FIRST_LOG:] = np.inf
        note += "; generated texture, so means to 6 levels and deviations to 15 %"
    ratio = float((difference / (_STANDARD_ERRORS * np.hypot(error, own_error) + slack)).max())
    return CaseResult(FAMILY, name, f"statistics/{case}", ratio, 1.0, ratio <= 1, note)
