# SPDX-License-Identifier: Apache-2.0
"""A memory of images in fixed-size tensors, which RoTTA and NOTE fill by rules of their own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from tta_bench.method import SourceModel

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
                [item.uncertainty for item in self.items] + [0.0] * free, dtype=torch.float64, device=device
            ),
            "age": torch.tensor([item.age for item in self.items] + [0] * free, device=device),
        }


def empty(source: SourceModel, capacity: int) -> Memory:
    """Return a memory without images."""
    none = torch.zeros(capacity, dtype=torch.int64, device=source.device)
    return {
        "images": torch.zeros(capacity, *source.image_shape, dtype=source.dtype, device=source.device),
        "labels": none - 1,
        "uncertainty": none.double(),
        "age": none,
    }
