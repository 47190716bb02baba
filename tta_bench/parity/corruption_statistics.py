# SPDX-License-Identifier: Apache-2.0
"""Statistics of randomly corrupted images, and their comparison with golden ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tta_bench.data.corruptions.constants import Scale
from tta_bench.data.corruptions.engine import corrupt
from tta_bench.parity.folder import entry
from tta_bench.parity.result import CaseResult

_BANDS, _BAND_WIDTH = 8, 0.0625
_FEWEST_SEEDS: Final = 64
_STANDARD_ERRORS, _LEVEL_SLACK, _LOG_SLACK = 4.0, 0.1, 0.01
_FROST_MEAN_SLACK, _FROST_SD_SLACK = 6.0, 0.15
_FIRST_SD, _CHANGE, _FIRST_LOG = 3, 6, 7

Array = npt.NDArray[np.float64]


def image_features(outputs: Tensor, clean: Tensor) -> Array:
    """Return the 15 statistics of each corrupted image.

    Means and deviations of the channels, the mean absolute change, and the logarithm of the mean power in eight
    bands of frequency of the grey image, its mean left out.

    Args:
        outputs: (N, 3, H, W) uint8.
        clean: (1, 3, H, W) uint8.

    Returns:
        (N, 15).
    """
    x = outputs.double()
    grey = x.mean(1)
    grey = grey - grey.mean((1, 2), keepdim=True)
    height, width = grey.shape[1:]
    power = torch.fft.fft2(grey).abs().square() / (height * width)
    rows = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    radius = torch.hypot(rows, torch.fft.fftfreq(width, dtype=torch.float64))
    bands = (radius / _BAND_WIDTH).long().clamp_(max=_BANDS - 1)
    bands[0, 0] = -1
    energy = torch.stack([power[:, bands == band].mean(1) for band in range(_BANDS)], 1)
    change = (x - clean.double()).abs().mean((1, 2, 3))[:, None]
    deviations = x.std((2, 3), correction=0)
    return torch.cat((x.mean((2, 3)), deviations, change, (energy + 1e-3).log10()), 1).numpy()


def compare_statistics(
    family: str, case: str, scale: Scale, clean: Tensor, golden: Mapping[str, Any], seeds: int
) -> CaseResult:
    """Corrupt a image many times and compare the means of its statistics with golden ones.

    Args:
        family: Golden family.
        case: ``scale/corruption/severity/image``.
        scale: Constants to use.
        clean: (1, 3, H, W) uint8.
        golden: ``mean`` and ``se``, 15 numbers each.
        seeds: How many golden seeds there were; as many ids are drawn, at least 64.
    """
    _, name, severity, _ = case.split("/")
    batch = clean.expand(max(seeds, _FEWEST_SEEDS), -1, -1, -1)
    features = image_features(corrupt(batch, name, int(severity), 0, scale=scale), clean)
    mean, error = (np.array(entry(golden, key, f"entry {case!r}")) for key in ("mean", "se"))
    own_error = features.std(0, ddof=1) / np.sqrt(len(features))
    allowed = _STANDARD_ERRORS * np.hypot(error, own_error) + _slack(name, mean)
    ratio = float((np.abs(features.mean(0) - mean) / allowed).max())
    note = f"largest of {len(mean)} means over {len(features)} draws, in units of its tolerance"
    if name == "frost":
        note += "; the texture is generated, so means agree to 6 levels, deviations to 15 % and spectra not at all"
    return CaseResult(family, name, f"statistics/{case}", ratio, 1.0, ratio <= 1, note)


def _slack(name: str, mean: Array) -> Array:
    """Return what each mean may differ by beyond its standard errors."""
    slack = np.full(len(mean), _LEVEL_SLACK)
    slack[_FIRST_LOG:] = _LOG_SLACK
    if name == "frost":
        slack[:_FIRST_SD] = slack[_CHANGE] = _FROST_MEAN_SLACK
        slack[_FIRST_SD:_CHANGE] = _FROST_SD_SLACK * mean[_FIRST_SD:_CHANGE]
        slack[_FIRST_LOG:] = np.inf
    return slack
