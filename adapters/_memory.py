# SPDX-License-Identifier: Apache-2.0
"""A memory of images in fixed-size tensors, the rules by which RoTTA and NOTE fill it, and rings of entries."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tta_bench.method import SourceModel
from tta_bench.optim import Tensors, widest

Memory = dict[str, Tensor]
"""``images`` (M, C, H, W), ``labels`` (M,) with -1 for free places, ``uncertainty`` and ``age`` (M,)."""


@dataclass
class Item:
    """One remembered image.

    Attributes:
        at: Row of the pool.
        label: Predicted class.
        uncertainty: Of the prediction, nats.
        age: Images since.
    """

    at: int
    label: int
    uncertainty: float = 0.0
    age: int = 0


class Pool:
    """The remembered images, in the order of their arrival, and those of the batch at hand.

    Args:
        memory: As carried in the state.
        images: The batch (N, C, H, W).
    """

    def __init__(self, memory: Memory, images: Tensor) -> None:
        self.capacity = len(memory["labels"])
        self.images = torch.cat([memory["images"], images])
        columns = (memory[name].tolist() for name in ("labels", "uncertainty", "age"))
        rows = enumerate(zip(*columns, strict=True))
        self.items = [Item(at, label, u, age) for at, (label, u, age) in rows if label >= 0]

    def counts(self) -> Counter[int]:
        """Return how many images of each class are remembered."""
        return Counter(item.label for item in self.items)

    def of(self, label: int) -> list[Item]:
        """Return the items of a class, the oldest first."""
        return [item for item in self.items if item.label == label]

    def drop(self, item: Item) -> None:
        """Forget an item."""
        self.items = [other for other in self.items if other is not item]

    def by_class(self) -> list[Item]:
        """Return all items by class, the oldest of each class first."""
        return sorted(self.items, key=lambda item: item.label)

    def taken(self, items: list[Item]) -> Tensor:
        """Return the images (M, C, H, W) of items."""
        return self.images[[item.at for item in items]]

    def memory(self) -> Memory:
        """Return the memory as the state carries it."""
        free, device = self.capacity - len(self.items), self.images.device
        kept = self.taken(self.items)
        return {
            "images": torch.cat([kept, kept.new_zeros(free, *kept.shape[1:])]),
            "labels": torch.tensor([item.label for item in self.items] + [-1] * free, device=device),
            "uncertainty": torch.tensor(
                [item.uncertainty for item in self.items] + [0.0] * free, dtype=widest(device), device=device
            ),
            "age": torch.tensor([item.age for item in self.items] + [0] * free, device=device),
        }


def empty(source: SourceModel, capacity: int) -> Memory:
    """Return a memory without images."""
    none = torch.zeros(capacity, dtype=torch.int64, device=source.device)
    return {
        "images": torch.zeros(capacity, *source.image_shape, dtype=source.dtype, device=source.device),
        "labels": none - 1,
        "uncertainty": none.to(widest(none.device)),
        "age": none,
    }


def undeserving(
    item: Item, capacity: int, classes: int, time_weight: float, uncertainty_weight: float
) -> float:
    """Return how little an item deserves its place: the older and the less certain, the less.

    Args:
        item: The item.
        capacity: Of the memory, the unit of age.
        classes: Number of classes; the logarithm of it is the unit of uncertainty.
        time_weight: Weight of the age.
        uncertainty_weight: Weight of the uncertainty.

    Source: RoTTA, arXiv:2303.13899, eq. 4.
    """
    old = time_weight / (1 + math.exp(-item.age / capacity))
    return old + uncertainty_weight * item.uncertainty / math.log(max(classes, 2))


def remember_by_score(pool: Pool, new: Item, classes: int, score: Callable[[Item], float]) -> None:
    """Put an item in the memory if a place of its class is free or held by one with a larger score, and let all age.

    Where the memory is full and the class has places left, one of the largest classes gives way.

    Args:
        pool: The memory.
        new: The item.
        classes: Number of classes, which have equal parts of the memory.
        score: Says how little an item deserves its place.

    Source: RoTTA, arXiv:2303.13899, section 3.3.
    """
    counts = pool.counts()
    candidates: list[Item] | None = None
    if counts[new.label] >= pool.capacity / classes:
        candidates = pool.of(new.label)
    elif len(pool.items) >= pool.capacity:
        largest = max(counts.values())
        candidates = [item for item in pool.by_class() if counts[item.label] == largest]
    if not candidates:
        pool.items.append(new)
    else:
        worst = max(reversed(candidates), key=score)
        if score(worst) > score(new):
            pool.drop(worst)
            pool.items.append(new)
    for item in pool.items:
        item.age += 1


def remember_by_chance(pool: Pool, new: Item, seen: int, chances: Sequence[float]) -> None:
    """Put an item in the memory, in the place of another one where it is full, or not at all.

    Args:
        pool: The memory.
        new: The item.
        seen: Images of its class so far, itself included.
        chances: Uniform numbers: which of the largest classes, which of its items, and whether at all.

    Source: NOTE, arXiv:2208.05117, algorithm 1.
    """
    if len(pool.items) >= pool.capacity:
        counts = pool.counts()
        largest = sorted(label for label, count in counts.items() if count == max(counts.values()))
        own = new.label in largest
        if own and chances[2] > counts[new.label] / seen:
            return
        label = new.label if own else largest[int(chances[0] * len(largest))]
        items = pool.of(label)
        pool.drop(items[int(chances[1] * len(items))])
    pool.items.append(new)


def written(ring: Tensors, start: Tensor, new: Tensors) -> Tensors:
    """Return rings (M, ...) with new entries (N, ...) from a place on, the last M of them where there are more."""
    found = {}
    for name, entries in new.items():
        size = len(ring[name])
        places = (start + torch.arange(len(entries), device=start.device))[-size:] % size
        found[name] = ring[name].index_copy(0, places, entries[-size:])
    return found
