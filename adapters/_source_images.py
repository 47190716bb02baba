# SPDX-License-Identifier: Apache-2.0
"""Statistics of source images, gathered once before the stream: which images, and moments of tensors over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tta_bench.method import Task
from tta_bench.optim import Tensors, widest


def source_batches(task: Task, samples: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images (M, C, H, W) in [0, 1] and labels (M,) of the source split, in batches of the configured size.

    Args:
        task: With the source split.
        samples: Images in all; all of the split if it has fewer.
    """
    assert task.source is not None
    count, size = min(samples, len(task.source)), task.batch_size
    for index in range(-(-count // size)):
        images, labels = task.source.batch(index, size)
        left = count - index * size
        yield images[:left], labels[:left]


def statistics_note(what: str, samples: int) -> dict[str, str]:
    """Return the note of a method that gathers statistics of at most that many source images."""
    return {"source_statistics": f"{what}, from {samples} source images at most"}


class Moments(NamedTuple):
    """Mean and unbiased variance over source images, by name."""

    mean: Tensors
    var: Tensors


def pooled_moments(batches: Iterable[Tensors]) -> Moments:
    """Return the moments over all images, which are summed in float64 about the first batch's means.

    Args:
        batches: Tensors (M, ...) by name, one row for each image.
    """
    count, centre, sums, squares, kind = 0, Tensors(), Tensors(), Tensors(), torch.float32
    for batch in batches:
        for name, tensor in batch.items():
            x, kind = tensor.to(widest(tensor.device)), tensor.dtype
            if name not in centre:
                centre[name] = x.mean(0)
                sums[name] = squares[name] = torch.zeros_like(centre[name])
            away = x - centre[name]
            sums[name] = sums[name] + away.sum(0)
            squares[name] = squares[name] + away.square().sum(0)
        count += len(next(iter(batch.values())))
    mean = {name: (centre[name] + sums[name] / count).to(kind) for name in centre}
    scale = max(count - 1, 1)
    var = {name: ((squares[name] - sums[name].square() / count) / scale).to(kind) for name in centre}
    return Moments(mean, var)


def averaged_moments(batches: Iterable[Tensors]) -> Moments:
    """Return the plain averages over batches of each batch's mean and unbiased variance.

    Args:
        batches: Tensors (M, ...) by name; batches of one image, which have no variance, are left out.
    """
    count, mean, var = 0, Tensors(), Tensors()
    for batch in batches:
        if len(next(iter(batch.values()))) < 2:
            continue
        count += 1
        for name, tensor in batch.items():
            v, m = torch.var_mean(tensor, 0)
            mean[name], var[name] = mean.get(name, 0) + m, var.get(name, 0) + v
    return Moments({n: m / count for n, m in mean.items()}, {n: v / count for n, v in var.items()})
