# SPDX-License-Identifier: Apache-2.0
"""Check that this platform renders the published PocketScenes, by the SHA-256 of all images of each split."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import torch

from tta_bench.pocket.scenes.draws import labels_of
from tta_bench.pocket.scenes.painter import render
from tta_bench.pocket.scenes.spec import SPLIT_SIZES, SPLITS

_BLOCK = 1000
PUBLISHED_SHA256: dict[str, str] = {
    "train": "b81e36039d85afec007dbaf204bb627ab495ffbb09c9667bfe71fab3eafc6788",
    "val": "b69b2c5e16d317d5a130d8dad46659ec7235a12665b1d67a3153676a81754d4d",
    "test": "2df0d6bb8fd016cddbef970442e01777dd046043ed2e94f2e0de8878044d2b5c",
    "v2": "f1b8421af357bddea30b64ce536460e54bc2b373c383798bf24f9b2e0c318cd5",
    "hard": "b2ec6793a0989965d561453dff43cc3eb7e09defc29b40a07d1870eed9b00926",
    "sketch": "360975dfce484b361e5a04b610ed55855985263e2a1a1e0f368a803103dafa30",
    "rendition": "59eb3af86aa7d97b2e3ca3c2e89b3ee054cb42642105fffd6ddcaddef1163f6f",
}


def measured_sha256(split: str) -> str:
    """Return the SHA-256 of all images of a split and then all its labels, as rendered here with seed 0."""
    size, digest = SPLIT_SIZES[split], sha256()
    for start in range(0, size, _BLOCK):
        images, _ = render(split, range(start, min(start + _BLOCK, size)))
        digest.update(images.numpy().tobytes())
    digest.update(labels_of(split, range(size)).numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def check_hashes(splits: Sequence[str] = SPLITS) -> tuple[str, ...]:
    """Compare what this platform renders with the published images, and warn where it differs.

    Args:
        splits: The splits to render, each whole: about 2 s each on one core, and ten times as long for ``train``.

    Returns:
        The splits that differ; empty on a platform that renders the published images.
    """
    differing = tuple(split for split in splits if measured_sha256(split) != PUBLISHED_SHA256[split])
    if differing:
        warnings.warn(
            f"PocketScenes {', '.join(differing)} differ in bits from the published images "
            f"({platform.machine()}, torch {torch.__version__}, numpy {np.__version__}): results made here are "
            "comparable with each other, not with published ones to the digit; please report the versions",
            stacklevel=2,
        )
    return differing
