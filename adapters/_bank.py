# SPDX-License-Identifier: Apache-2.0
"""A bank of remembered features for each class, and the rules by which a new one is admitted.

The state of a bank is a dict of tensors of fixed shapes: ``entropy`` (C, M), ``count`` (C,) and any number of
others (C, M, ...), e.g. ``keys`` (C, M, D); slots from the count on are free and hold zeros. While a batch passes,
items are named by *columns*: below C * M the slots of the state, then the rows of the batch in order. Admission
moves columns, never features, so a batch is compared with the bank in one product although each of its images
meets the bank as it stands at its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tta_bench.optim import Tensors


class Item(NamedTuple):
    """One remembered feature: its entropy, and its column."""

    entropy: float
    column: int


Row = list[Item]
"""The items of one class, in order of their slots."""
Rule = Callable[[Row, Item, int], Row]
"""Maps the items of a class, a new one and the capacity to the items that stay."""


def by_entropy(row: Row, new: Item, capacity: int) -> Row:
    """Return the items of least entropy, ascending; of equals the older ones first."""
    place = sum(item.entropy <= new.entropy for item in row)
    return [*row[:place], new, *row[place:]][:capacity]


def over_the_worst(row: Row, new: Item, capacity: int) -> Row:
    """Return the items with the new one in a free slot, or in that of largest entropy if its own is smaller."""
    if len(row) < capacity or new.entropy < max(row).entropy:
        return always_over_the_worst(row, new, capacity)
    return row


def always_over_the_worst(row: Row, new: Item, capacity: int) -> Row:
    """Return the items with the new one in a free slot, or in that of largest entropy, the first of equals."""
    if len(row) < capacity:
        return [*row, new]
    worst = max(range(capacity), key=lambda slot: row[slot].entropy)
    return [*row[:worst], new, *row[worst + 1 :]]


def latest(row: Row, new: Item, capacity: int) -> Row:
    """Return the newest items, the oldest of them first."""
    return [*row, new][-capacity:]


def empty(classes: int, capacity: int, like: Tensor, **sizes: int) -> Tensors:
    """Return a bank without items.

    Args:
        classes: C.
        capacity: M.
        like: Type and device.
        sizes: Length of what is remembered of an item, by name.
    """
    made = {name: like.new_zeros(classes, capacity, size) for name, size in sizes.items()}
    count = torch.zeros(classes, dtype=torch.int64, device=like.device)
    return {**made, "entropy": like.new_zeros(classes, capacity), "count": count}


class Bank:
    """A bank while a batch passes through it.

    Args:
        state: As carried; it is not written to.
        images: N.
    """

    def __init__(self, state: Mapping[str, Tensor], images: int) -> None:
        self._state, self.images = state, images
        self.classes, self.capacity = state["entropy"].shape
        self.first = self.classes * self.capacity
        """Column of the batch's first row."""
        self._rows: dict[int, Row] = {}
        self._moves: list[tuple[slice, int, Row]] = []

    def row(self, label: int) -> Row:
        """Return the items of a class as they stand."""
        if label not in self._rows:
            count, start = int(self._state["count"][label]), label * self.capacity
            found = enumerate(self._state["entropy"][label, :count].tolist(), start)
            self._rows[label] = [Item(entropy, column) for column, entropy in found]
        return self._rows[label]

    def admit(self, image: int, label: int, entropy: float, rule: Rule) -> bool:
        """Offer image number ``image`` of the batch to the bank, in order of the numbers; tell whether it entered."""
        new = rule(self.row(label), Item(entropy, self.first + image), self.capacity)
        entered = new != self._rows[label]
        if entered:
            self._rows[label] = new
            self._moves.append((slice(image, None), label, new))
        return entered

    def lend(self, image: int, label: int, row: Row) -> None:
        """Let one image of the batch see other items of a class than the bank keeps."""
        self._moves.append((slice(image, image + 1), label, row))

    @property
    def changed(self) -> bool:
        """Whether an item was admitted."""
        return any(move[0].stop is None for move in self._moves)

    def held(self) -> Tensor:
        """Return the columns of the items that the state came with."""
        count = self._state["count"].unsqueeze(-1)
        return (torch.arange(self.capacity, device=count.device) < count).flatten().nonzero().squeeze(-1)

    def table(self, extra: int = 0) -> Tensor:
        """Return the columns (N, C, M + extra) of the items that each image meets; -1 for a free slot."""
        count = self._state["count"]
        slots = torch.arange(self.first, device=count.device).view(self.classes, self.capacity)
        base = slots.where(torch.arange(self.capacity, device=count.device) < count[:, None], -1)
        base = torch.nn.functional.pad(base, (0, extra), value=-1)
        made = base.expand(self.images, -1, -1).clone()
        for images, label, row in self._moves:
            columns = [item.column for item in row] + [-1] * (self.capacity + extra - len(row))
            made[images, label] = torch.tensor(columns, device=count.device)
        return made

    def cosines(self, table: Tensor, queries: Tensor, rows: Tensor, own: Tensor | None = None) -> Tensor:
        """Return the products (N, C, M) of each image's query with the items that it meets; 0 for free slots.

        Args:
            table: From `table`.
            queries: (N, D).
            rows: (N, D) features under which the images of the batch are remembered.
            own: (N, B, D) features that each image alone meets; their columns follow those of the batch.
        """
        found = [queries @ self._state["keys"].flatten(0, 1).T, queries @ rows.T]
        if own is not None:
            found.append((own @ queries.unsqueeze(-1)).squeeze(-1))
        columns = table.clamp(min=0).flatten(1)
        return torch.cat(found, 1).gather(1, columns).view(table.shape) * (table >= 0)

    def spread(self, table: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (N, C, M) of a table's items by column: of the state (N, C * M), of the batch (N, N)."""
        columns = table.clamp(min=0).flatten(1)
        spread = weights.new_zeros(self.images, self.first + self.images)
        spread.scatter_add_(1, columns, (weights * (table >= 0)).flatten(1))
        return spread[:, : self.first], spread[:, self.first :]

    def sums(self, table: Tensor, weights: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted sums (N, C, D) of the features of each class as each image meets them.

        Args:
            table: From `table`.
            weights: (N, C, M) of its items.
            rows: (N, D) features under which the images of the batch are remembered.
            labels: (N,) classes under which they are.
        """
        before, now = self.spread(table, weights)
        shaped = before.view(-1, self.classes, self.capacity)
        found = torch.einsum("ncm,cmd->ncd", shaped, self._state["keys"])
        return found.index_add(1, labels, now.unsqueeze(-1) * rows)

    def after(self, **rows: Tensor) -> Mapping[str, Tensor]:
        """Return the bank's state after the batch; the very state that came in where nothing was admitted.

        Args:
            rows: What the images are remembered by, by name: (N, ...) each.
        """
        if not self.changed:
            return self._state
        lasting = {label: row for images, label, row in self._moves if images.stop is None}
        labels = torch.tensor(list(lasting), device=self._state["count"].device)
        padded = [[i.column for i in row] + [-1] * (self.capacity - len(row)) for row in lasting.values()]
        columns = torch.tensor(padded, device=labels.device)
        counts = torch.tensor([len(row) for row in lasting.values()], device=labels.device)
        new = {"count": self._state["count"].index_copy(0, labels, counts)}
        for name, values in rows.items():
            old = self._state[name]
            kept = old.flatten(0, 1)[columns.clamp(0, self.first - 1)]
            come = values[(columns - self.first).clamp(min=0)]
            shape = (*columns.shape, *[1] * (old.ndim - 2))
            mixed = torch.where((columns >= self.first).view(shape), come, kept)
            new[name] = old.index_copy(0, labels, mixed * (columns >= 0).view(shape))
        return {name: new[name] for name in self._state}
