# SPDX-License-Identifier: Apache-2.0
"""Corruptions that are applied while images are loaded."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tta_bench.data.corruptions import Options, corrupt
from tta_bench.data.corruptions.frost import option_facts
from tta_bench.data.layouts.reading import Generated


def corrupted(images: Tensor, ids: Sequence[str], generated: Generated) -> Tensor:
    """Return images (N, 3, H, W) uint8 under a corruption; each draws its random numbers from its id."""
    return corrupt(
        images,
        generated.name,
        generated.severity,
        generated.seed,
        ids=ids,
        options=Options(**dict(generated.options)),
    )


def generation_facts(generated: Generated | None) -> list[object] | None:
    """Return what the corruption of the pixels depends on, None where there is none."""
    if generated is None:
        return None
    facts = (generated.name, generated.severity, generated.seed, generated.first)
    return [*facts, option_facts(generated.options)]
