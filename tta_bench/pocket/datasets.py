# SPDX-License-Identifier: Apache-2.0
"""The PocketScenes datasets: the embedded default that runs with nothing to download."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tta_bench.data.dataset import Dataset, OpenRequest
from tta_bench.pocket.scenes.spec import CLASS_NAMES, TEMPLATES

if TYPE_CHECKING:
    from tta_bench.pocket.images import PocketImages

SPLITS = {
    "pocket": "test",
    "pocket-c": "test",
    "pocket-v2": "v2",
    "pocket-hard": "hard",
    "pocket-sketch": "sketch",
    "pocket-rendition": "rendition",
}
CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
    "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
    "speckle_noise", "gaussian_blur", "spatter", "saturate",
)  # fmt: skip


def open_pocket(opening: OpenRequest) -> PocketImages:
    """Return the rendered images of one split, corrupted where the shift says so."""
    from tta_bench.data.layouts.reading import corruption_options

    shift = opening.shift
    chosen = corruption_options(opening.options) if shift.corruption else ()
    return _opened(SPLITS[shift.dataset], shift.corruption, shift.severity, opening.seed, chosen)


def open_training_split() -> PocketImages:
    """Return the images that the pocket models were trained on."""
    return _opened("train", "", 0, 0, ())


@lru_cache(maxsize=4)
def _opened(
    split: str, corruption: str, severity: int, seed: int, chosen: tuple[tuple[str, Any], ...]
) -> PocketImages:
    from tta_bench.pocket.images import PocketImages

    return PocketImages(split, corruption, severity, seed, chosen)


def _declare(name: str, title: str, corrupted: bool = False) -> Dataset:
    return Dataset(
        name=name,
        title=title,
        class_names=CLASS_NAMES,
        open=open_pocket,
        corruptions=CORRUPTIONS if corrupted else (),
        default_corruptions=CORRUPTIONS[:15] if corrupted else (),
        templates=TEMPLATES,
        default_subset="first-200",
        default_batch=50,
        source_split=open_training_split,
        demonstration=True,
        licence="Apache-2.0",
        citation="PocketScenes, shipped with tta-bench",
    )


POCKET = _declare("pocket", "PocketScenes, rendered scenes of 16 objects: the clean test split")
POCKET_C = _declare("pocket-c", "PocketScenes under the common corruptions, like CIFAR-10-C", corrupted=True)
POCKET_V2 = _declare("pocket-v2", "PocketScenes with wider poses, darker and more occluded, like ImageNet-V2")
POCKET_HARD = _declare("pocket-hard", "PocketScenes, small objects among clutter, like ImageNet-A")
POCKET_SKETCH = _declare("pocket-sketch", "PocketScenes as grey drawings on paper, like ImageNet-Sketch")
POCKET_RENDITION = _declare("pocket-rendition", "PocketScenes in flat outlined colours, like ImageNet-R")
