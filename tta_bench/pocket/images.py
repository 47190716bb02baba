# SPDX-License-Identifier: Apache-2.0
"""Read PocketScenes images by position, corrupted on the way where the shift says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tta_bench.data.corruptions import Options, corrupt
from tta_bench.data.corruptions.frost import option_facts
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.layouts.reading import generated_origin
from tta_bench.pocket.scenes.draws import labels_of
from tta_bench.pocket.scenes.painter import render
from tta_bench.pocket.scenes.spec import GENERATOR_VERSION, SPLIT_SIZES
from tta_bench.spec import digest

CHUNK = 100


class PocketImages:
    """One PocketScenes split under at most one corruption; images are kept once they were made.

    The labels of a split are shuffled, so the first N images are a random sample; `arrangement` says so.

    Args:
        split: Name of the split.
        corruption: Name of the corruption; empty: none.
        severity: 1 to 5.
        seed: Of the corruption's random numbers; the scenes themselves always have seed 0.
        chosen: Options of the corruption that are not at their default.
    """

    arrangement = "shuffled over the classes"

    def __init__(
        self,
        split: str,
        corruption: str = "",
        severity: int = 0,
        seed: int = 0,
        chosen: tuple[tuple[str, Any], ...] = (),
    ) -> None:
        self._split, self._corruption, self._severity, self._seed = split, corruption, severity, seed
        self._options = Options(**dict(chosen))
        self.origin = generated_origin("PocketScenes", chosen) if corruption else "PocketScenes"
        count = SPLIT_SIZES[split]
        self.ids: Sequence[str] = [f"{split}/{index:05d}" for index in range(count)]
        self.labels: np.ndarray = labels_of(split, range(count)).numpy()
        facts = [GENERATOR_VERSION, split, corruption, severity, seed if corruption else 0]
        self.data_hash = digest([*facts, option_facts(chosen)] if chosen else facts, 16)
        self._made: dict[int, Tensor] = {}

    def __len__(self) -> int:
        """Return the size of the split."""
        return len(self.ids)

    def load(self, positions: Sequence[int], preprocess: Preprocess) -> Tensor:
        """Return the model inputs (N, 3, H, W) uint8 of the scenes at these positions."""
        missing = [position for position in positions if position not in self._made]
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            self._made.update(zip(chunk, self._make(chunk), strict=True))
        return preprocess.batch(torch.stack([self._made[position] for position in positions]))

    def _make(self, positions: Sequence[int]) -> Tensor:
        images = render(self._split, positions)[0]
        if not self._corruption:
            return images
        ids = [self.ids[position] for position in positions]
        return corrupt(images, self._corruption, self._severity, self._seed, ids=ids, options=self._options)
