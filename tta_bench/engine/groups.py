# SPDX-License-Identifier: Apache-2.0
"""The number of images adapted at once where each is an episode of its own: as many as pay and fit.

The size comes from what one image takes and from the memory that the machine has, not from what is free at the
moment nor from a clock, so that a run on the same machine makes the same groups and the same numbers.

On the CPU a group under ``vmap`` saves calls of kernels, and reads weights that its images share once. It costs
memory, and where each image has weights of its own, its products are no larger than before. So images are grouped where
a step is small (pocket models: 1.1 to 3.4 times as fast as a loop), or where it does few products with each of many
shared weights (CLIP ViT-B/32 with one view: 1.4 times). Elsewhere one image after another is as fast (ResNet-18 and
ViT-Tiny with one view) or faster (MEMO at 224 x 224). On other devices, where nothing was measured, images are grouped
as far as memory goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tta_bench.data.stream import Batch
from tta_bench.engine.devices import MIB, device_peak, tells_peaks
from tta_bench.engine.flops import multiply_adds
from tta_bench.engine.machine import memory_bytes
from tta_bench.engine.meter import cpu_peak
from tta_bench.method import State
from tta_bench.models.source import SourceModel

STEP_SHARE = 0.25
"""Share of the machine's memory that a step over a group may take."""
SMALL_STEP = 250_000_000
"""Multiply-adds of a step over one image up to which calls of kernels cost more than their products."""
FEW_PRODUCTS = 150
"""Multiply-adds of a step with each weight up to which reading the weights bounds it."""
OWN_SHARE = 0.1
"""Share of the weights up to which an image's own tensors leave the shared ones to bound a step."""
DRAWS_SHARE = 1 / 16
"""Share of it that a group's random numbers may take; the method then copies and moves them."""


def grouping_pays(source: SourceModel, state: State, step: Callable[[], object]) -> bool:
    """Return whether images that are adapted by ``vmap`` take less time in groups than one after another.

    Args:
        source: The source model.
        state: The initial state, of which every image gets a copy as far as a step changes it.
        step: Adapts to one image; it is run once and its products counted.
    """
    if source.device.type != "cpu":
        return True
    cost = multiply_adds(step)
    weights = sum(one.numel() for one in source.params.values())
    own = sum(one.numel() for one in pytree.tree_leaves(state) if isinstance(one, torch.Tensor))
    return cost <= SMALL_STEP or (cost <= FEW_PRODUCTS * weights and own <= OWN_SHARE * weights)


def images_at_once(most: int, device: torch.device, draws: Any, step: Callable[[], object] | None) -> int:
    """Return how many images form a group.

    Args:
        most: Images of a batch.
        device: Where the step runs.
        draws: The random numbers of one image.
        step: Adapts to one image; it is run once and its memory measured. None where the memory of a step does
            not grow with the group, or the method splits the group by itself.
    """
    if step is not None and device.type != "cpu" and not tells_peaks(device):
        return 1  # nothing tells what a step takes
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
