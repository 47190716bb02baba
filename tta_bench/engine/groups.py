# SPDX-License-Identifier: Apache-2.0
"""The number of images adapted at once where each is an episode of its own: as many as memory holds.

The size comes from what one image takes and from the memory that the machine has, not from what is free at the
moment, so that a run on the same machine makes the same groups and the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tta_bench.data.stream import Batch
from tta_bench.engine.devices import MIB, device_peak, tells_peaks
from tta_bench.engine.machine import memory_bytes
from tta_bench.engine.meter import cpu_peak

STEP_SHARE = 0.25
"""Share of the machine's memory that a step over a group may take."""
DRAWS_SHARE = 1 / 16
"""Share of it that a group's random numbers may take; the method then copies and moves them."""


def images_at_once(most: int, device: torch.device, draws: Any, step: Callable[[], object] | None) -> int:
    """Return how many images form a group.

    Args:
        most: Images of a batch.
        device: Where the step runs.
        draws: The random numbers of one image.
        step: Adapts to one image; it is run once and its memory measured. None where the memory of a step does
            not grow with the group, or the method splits the group by itself.
    """
    memory = memory_bytes(device)
    leaves = [leaf for leaf in pytree.tree_leaves(draws) if isinstance(leaf, torch.Tensor)]
    drawn = sum(leaf.untyped_storage().nbytes() for leaf in leaves)
    taken = 0.0 if step is None else MIB * _peak(step, device)
    return max(1, int(min(most, DRAWS_SHARE * memory / max(drawn, 1), STEP_SHARE * memory / max(taken, 1))))


def _peak(step: Callable[[], object], device: torch.device) -> float:
    return device_peak(step, device)[0] if tells_peaks(device) else cpu_peak(step)


def groups(batch: Batch, size: int) -> Iterator[Batch]:
    """Yield a batch in groups of at most ``size`` images."""
    if len(batch.rows) <= size:
        yield batch
        return
    for start in range(0, len(batch.rows), size):
        part = slice(start, start + size)
        yield batch._replace(
            images=batch.images[part],
            rows=batch.rows[part],
            ids=batch.ids[part],
            shifts=batch.shifts[part],
            first=batch.first and start == 0,
        )
