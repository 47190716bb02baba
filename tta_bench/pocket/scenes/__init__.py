# SPDX-License-Identifier: Apache-2.0
"""PocketScenes: a procedurally rendered 16-class data set that needs no download.

Images are 32x32 scenes of one object. It is a demonstration and a test bed, not a benchmark of the world.
What draws needs torch and is imported when it is first asked for, so that the facts are there at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tta_bench.pocket.scenes.spec import (
    BACKGROUNDS,
    CLASS_NAMES,
    COLOUR_NAMES,
    SPLIT_SIZES,
    SPLITS,
    TEMPLATES,
    TEXTURES,
    Facts,
)

if TYPE_CHECKING:
    from tta_bench.pocket.scenes.draws import labels_of
    from tta_bench.pocket.scenes.painter import facts, render
    from tta_bench.pocket.scenes.verify import check_hashes

_DRAWING = {"labels_of": "draws", "facts": "painter", "render": "painter", "check_hashes": "verify"}

__all__ = [
    "BACKGROUNDS",
    "CLASS_NAMES",
    "COLOUR_NAMES",
    "SPLITS",
    "SPLIT_SIZES",
    "TEMPLATES",
    "TEXTURES",
    "Facts",
    "check_hashes",
    "facts",
    "labels_of",
    "render",
]


def __getattr__(name: str) -> Any:
    if name not in _DRAWING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_DRAWING[name]}"), name)
