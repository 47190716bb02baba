# SPDX-License-Identifier: Apache-2.0
"""The fit of many students at once: which engine, how many at a time, and the loop of iterations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tta_bench.errors import BadInputError

from ._active import Active
from ._adam import Adam, Moments, Updater
from ._dims import Student
from ._fast import Fast, Products
from ._graph import Replay
from ._reference import Reference
from ._tiles import Tiles, runs

Engine = Literal["auto", "reference", "fast", "active"]
AT_ONCE_ON_CPU = 1 << 21
"""Weights fitted at once on a CPU: more of them leave its caches and cost time."""
ACTIVE_FROM = 1 << 28
"""Multiply-adds of the inner layers from which the active engine pays on a CPU; below, sorting the units costs more."""
GPU_SHARE = 0.5
"""Share of a GPU's memory that students may take."""


class Fit(NamedTuple):
    """The course of N fits; entry k is the forward pass after k updates.

    Attributes:
        losses: (U + 1, N).
        predictions: (U + 1, N, D), or (U + 1, N, D, L) without pooling.
        weights: (N, P) after the last update.
        moments: Adam's moments after the last update that was taken.
    """

    losses: Tensor
    predictions: Tensor
    weights: Tensor
    moments: Moments


@dataclass(frozen=True)
class Way:
    """Settings of how a fit is computed.

    Attributes:
        engine: Name of the engine.
        products: Precision of the inner products; only the fast engine has a choice.
        stop: The fit of a group of images ends when the loss of each is at most this; 0 for never.
        keep: Whether weights and moments are handed back, or empty tensors in their place.
        tiled: Whether Adam is joined with the gradients of the inner layers' weights; only the fast engine can. None
            joins them on a GPU, where reading and writing weights is what takes the time.
    """

    engine: Engine = "auto"
    products: Products = "full"
    stop: float = 0.0
    keep: bool = True
    tiled: bool | None = None


def choose(engine: Engine, student: Student, device: torch.device) -> Engine:
    """Return the engine that a student is fitted by: as asked, or by device and size."""
    if engine != "auto":
        return engine
    if student.pooling == "none":
        return "fast"
    return "active" if device.type == "cpu" and inner_products(student) >= ACTIVE_FROM else "fast"


def inner_products(student: Student) -> int:
    """Return the multiply-adds of the two inner layers, forward."""
    first, second, third = student.dims.widths
    return student.grid[0] * student.grid[1] * second * (first + third)


@contextmanager
def one_thread(*, wanted: bool) -> Iterator[None]:
    """Compute on one thread inside this context.

    Small products gain a third from a second thread on idle cores, and lose ten times over on busy ones, where every
    product waits for its threads to be scheduled.
    """
    before = torch.get_num_threads()
    if wanted and before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def at_once(student: Student, like: Tensor) -> int:
    """Return how many students are fitted at a time, from the caches of a CPU or the memory of a GPU.

    What is free at the moment does not count: the same run makes the same groups.
    """
    if like.device.type != "cuda":
        return max(1, AT_ONCE_ON_CPU // student.size)
    places = student.grid[0] * student.grid[1]
    numbers = 4 * student.size + 2 * places * sum(student.dims.widths)
    memory = torch.cuda.get_device_properties(like.device).total_memory
    return max(1, int(GPU_SHARE * memory / (numbers * like.element_size())))


def fit(
    student: Student,
    weights: Tensor,
    patches: Tensor | None,
    target: Tensor,
    adam: Adam,
    updates: int,
    start: Moments | None = None,
    way: Way = Way(),
) -> Fit:
    """Fit N students, each to its own target, and record the course.

    Args:
        student: Its sizes.
        weights: (N, P) to start from; not written to.
        patches: (N, patches, pixels) of the images, or None for students that see no image.
        target: (N, D), or (N, D, L) for a student without pooling, in which a location that is NaN is held out.
        adam: The optimiser.
        updates: Number U of updates, 0 or more.
        start: Moments to start from, not written to; None for zero moments.
        way: How it is computed.

    Raises:
        BadInputError: For a negative number of updates, or moments of groups that an early stop ended apart.
    """
    if updates < 0:
        raise BadInputError(f"the number of updates must be 0 or more, got {updates}")
    group = at_once(student, weights)
    small = not weights.is_cuda and inner_products(student) < ACTIVE_FROM
    with one_thread(wanted=small):
        parts = [
            _fit(student, weights[i : i + group].clone(), None if patches is None else patches[i : i + group],
                 target[i : i + group], adam, updates, start and _rows(start, i, i + group), way)
            for i in range(0, len(weights), group)
        ]  # fmt: skip
    return parts[0] if len(parts) == 1 else _joined(parts, keep=way.keep)


def _joined(parts: list[Fit], *, keep: bool) -> Fit:
    """Return the fits of groups of students as one."""
    if keep and len({part.moments.done for part in parts}) > 1:
        raise BadInputError(
            "stop_loss ended groups of students after different numbers of updates, which the moments of all cannot "
            "hold; leave stop_loss out, fit fewer images at a time, or set keep=False"
        )
    return Fit(
        torch.cat([part.losses for part in parts], dim=1),
        torch.cat([part.predictions for part in parts], dim=1),
        torch.cat([part.weights for part in parts]),
        Moments(
            torch.cat([part.moments.first for part in parts]),
            torch.cat([part.moments.second for part in parts]),
            parts[0].moments.done,
        ),
    )


def _rows(moments: Moments, start: int, stop: int) -> Moments:
    return Moments(moments.first[start:stop].clone(), moments.second[start:stop].clone(), moments.done)


def _fit(
    student: Student,
    weights: Tensor,
    patches: Tensor | None,
    target: Tensor,
    adam: Adam,
    updates: int,
    start: Moments | None,
    way: Way,
) -> Fit:
    """Fit students that fit into memory together; the weights and the moments are written over."""
    chosen = choose(way.engine, student, weights.device)
    moments = start or Moments(torch.zeros_like(weights), torch.zeros_like(weights), 0)
    wanted = weights.is_cuda if way.tiled is None else way.tiled
    tiles = None
    if wanted and chosen == "fast" and not adam.leftover:
        tiles = Tiles(student, adam, weights, moments)
    # What the tiles move needs no room for its gradient.
    places = None if tiles is None else list(runs(student))
    size = student.size if places is None else places[-1][1].stop
    grads = weights.new_zeros(len(weights), size)
    engine = make_engine(chosen, student, weights, grads, patches, target, way.products, tiles)
    updater = Updater(adam, weights, grads, moments, fused=chosen != "reference", runs=places)

    def iterate(done: int) -> tuple[Tensor, Tensor]:
        seen = engine.forward()
        if tiles is not None:
            tiles.done = done
        engine.backward()
        updater.step(done)
        return seen

    graphs = weights.is_cuda and chosen == "fast" and not (adam.every or adam.leftover)
    repeat = Replay(iterate) if graphs else iterate
    done = start.done if start else 0
    losses, predictions, taken = _course(repeat, engine.forward, target, updates, done, way.stop)
    if not way.keep:
        nothing = weights.new_empty(len(weights), 0)
        return Fit(losses, predictions, nothing, Moments(nothing, nothing, done + taken))
    return Fit(losses, predictions, weights, updater.moments(done + taken))


def make_engine(
    name: Engine,
    student: Student,
    weights: Tensor,
    grads: Tensor,
    patches: Tensor | None,
    target: Tensor,
    products: Products = "full",
    tiles: Tiles | None = None,
) -> Reference | Fast | Active:
    """Return an engine; the arguments are those of `_apm_fast.Fast`."""
    if name == "active" and student.pooling == "none":
        raise BadInputError(
            "engine 'active' fits one feature per image and takes no targets of locations; choose 'fast' or 'reference'"
        )
    if name == "fast":
        return Fast(student, weights, grads, patches, target, products, tiles)
    return (Reference if name == "reference" else Active)(student, weights, grads, patches, target)


def _course(
    iterate: Callable[[int], tuple[Tensor, Tensor]],
    forward: Callable[[], tuple[Tensor, Tensor]],
    target: Tensor,
    updates: int,
    done: int,
    stop: float,
) -> tuple[Tensor, Tensor, int]:
    """Run the iterations and a last forward pass and count the updates.

    What an early stop leaves out repeats the last entry; the update after the last pass has been taken all the same.
    """
    losses = target.new_empty(updates + 1, len(target))
    predictions = target.new_empty(updates + 1, *target.shape)
    for k in range(updates + 1):
        losses[k], predictions[k] = iterate(done + k) if k < updates else forward()
        if stop and bool((losses[k] <= stop).all()):
            losses[k + 1 :], predictions[k + 1 :] = losses[k], predictions[k]
            break
    return losses, predictions, min(k + 1, updates)
