# SPDX-License-Identifier: Apache-2.0
"""Replay of the corruption goldens: deterministic outputs, outputs with injected draws, and statistics."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from tta_bench.data.corruptions.constants import Scale
from tta_bench.data.corruptions.engine import apply, corrupt, make_setting
from tta_bench.data.images.files import DECODING_ERRORS
from tta_bench.errors import BadInputError
from tta_bench.parity.corruption_draws import FROST_TEXTURE, can_inject, injected_draws
from tta_bench.parity.corruption_statistics import compare_statistics
from tta_bench.parity.folder import entry, read_arrays, read_json
from tta_bench.parity.judge import not_replayed
from tta_bench.parity.result import CaseResult

FAMILY: Final = "corruptions"
DETERMINISTIC, INJECTED, STATISTICS = "deterministic.npz", "injected.npz", "stochastic_stats.json"

_SPATTER_LEVELS, _SPATTER_SHARE = 2, 0.02
_IMAGE: Final = "img_"

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
_INJECTED_BOUND: Final = Bound(1, 0.01)
_INJECTED_BOUNDS: Final = {("frost", "imagenet"): Bound(1, 0.03), ("frost", "cifar"): Bound(1, 0.03)} | {
    ("glass_blur", "cifar"): Bound(2, 0.1)
}


class _Case(NamedTuple):
    """One golden output and what it was made from."""

    path: str
    name: str
    severity: int
    scale: Scale
    image: Tensor
    golden: Array


def cases(folder: Path, method: str | None = None) -> Iterator[CaseResult]:
    """Replay the goldens of a folder, case by case.

    Args:
        folder: Holds any of ``deterministic.npz``, ``injected.npz`` and ``stochastic_stats.json``.
        method: Only this corruption; None for all.

    Raises:
        BadInputError: If a file cannot be read or is incomplete.
    """
    if (folder / DETERMINISTIC).exists():
        yield from _deterministic_cases(_arrays(folder / DETERMINISTIC), method)
    if (folder / INJECTED).exists():
        yield from _injected_cases(_arrays(folder / INJECTED), method)
    if (folder / STATISTICS).exists():
        yield from _statistics_cases(folder, method)


def _arrays(path: Path) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in read_arrays(path).items()}


def _scale(label: str) -> Scale:
    """Return the constants of a label: two references share those of imagenet."""
    return "cifar" if label == "cifar" else "imagenet"


def _decode(stored: Mapping[str, Array], key: str) -> Array:
    try:
        with Image.open(io.BytesIO(entry(stored, key, "the golden file").tobytes())) as image:
            return np.asarray(image.convert("RGB"))
    except DECODING_ERRORS as error:
        raise BadInputError(f"golden image {key!r} cannot be decoded: {error}; check the file") from error


def _to_batch(image: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def _difference(ours: Tensor, golden: Array) -> Array:
    return np.asarray(np.abs(ours[0].permute(1, 2, 0).numpy().astype(np.int64) - golden))


def _judge(case: _Case, ours: Tensor, bound: Bound) -> CaseResult:
    difference = _difference(ours, case.golden)
    mean, most = float(difference.mean()), float(difference.max())
    passed = most <= bound.most and mean <= bound.mean
    note = f"levels; mean {mean:.4f}, allowed {bound.mean:g}"
    return CaseResult(FAMILY, case.name, case.path, most, bound.most, passed, note)


def _judge_spatter(case: _Case, ours: Tensor) -> CaseResult:
    off = float((_difference(ours, case.golden).max(2) > _SPATTER_LEVELS).mean())
    note = f"share of pixels more than {_SPATTER_LEVELS} levels off"
    return CaseResult(FAMILY, case.name, case.path, off, _SPATTER_SHARE, off <= _SPATTER_SHARE, note)


def _deterministic_cases(stored: Mapping[str, Array], method: str | None) -> Iterator[CaseResult]:
    for key in stored:
        parts = key.removesuffix(".png").split("/")
        if len(parts) != 4 or method not in (None, parts[1]):
            continue
        label, name, severity, image_name = parts
        if name not in _DETERMINISTIC_BOUNDS:
            yield not_replayed(FAMILY, name, "/".join(parts), "this corruption is not deterministic")
            continue
        image = _to_batch(_decode(stored, f"{_IMAGE}{image_name}.png"))
        case = _Case("/".join(parts), name, int(severity), _scale(label), image, _decode(stored, key))
        ours = corrupt(image, name, case.severity, 0, scale=case.scale)
        yield _judge(case, ours, _DETERMINISTIC_BOUNDS[name])


def _injected_cases(stored: Mapping[str, Array], method: str | None) -> Iterator[CaseResult]:
    for key, golden in stored.items():
        parts = key.split("/")
        if len(parts) != 4 or parts[3] != "out" or method not in (None, parts[1]):
            continue
        label, name, severity, _ = parts
        path = "/".join(parts[:3])
        if not can_inject(name):
            yield not_replayed(FAMILY, name, path, "the draws of this corruption cannot be given")
            continue
        image = _to_batch(_input_of(stored, label, golden))
        case = _Case(path, name, int(severity), _scale(label), image, golden)
        yield _replay_injected(case, stored)


def _input_of(stored: Mapping[str, Array], label: str, golden: Array) -> Array:
    """Return the image of a case: the one that the format names if it has the size, else one that has it."""
    usual = "img_k32a" if label == "cifar" else "img_a64"
    names = [usual, *(name for name in stored if name.startswith(_IMAGE))]
    fitting = [name for name in names if name in stored and stored[name].shape == golden.shape]
    if not fitting:
        raise BadInputError(f"no input image of shape {golden.shape} found; the golden file is incomplete")
    return stored[fitting[0]]


def _replay_injected(case: _Case, stored: Mapping[str, Array]) -> CaseResult:
    setting = make_setting(case.name, case.severity, tuple(case.image.shape[2:]), case.scale)
    prefix = f"{case.path}/"
    given = {name.removeprefix(prefix): array for name, array in stored.items() if name.startswith(prefix)}
    if FROST_TEXTURE in stored:
        given[FROST_TEXTURE] = stored[FROST_TEXTURE]
    ours = apply(case.name, case.image, injected_draws(case.name, given, setting), setting)
    if case.name == "spatter":
        return _judge_spatter(case, ours)
    return _judge(case, ours, _INJECTED_BOUNDS.get((case.name, case.scale), _INJECTED_BOUND))


def _statistics_cases(folder: Path, method: str | None) -> Iterator[CaseResult]:
    reference = read_json(folder / STATISTICS)
    stored = _arrays(folder / DETERMINISTIC)
    for case, golden in entry(reference, "entries", STATISTICS).items():
        label, name, _, image = case.split("/")
        if method in (None, name):
            clean = _to_batch(_decode(stored, f"{_IMAGE}{image}.png"))
            seeds = int(entry(reference, "n_seeds", STATISTICS))
            yield compare_statistics(FAMILY, case, _scale(label), clean, golden, seeds)
