# SPDX-License-Identifier: Apache-2.0
"""Two sides paired image by image: the rows of a comparison, per shift and overall."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tta_bench.errors import BadInputError
from tta_bench.metrics.accuracy import Interval
from tta_bench.metrics.paired import bootstrap_mean, holm, sign_flip
from tta_bench.reports.load import Floats, Integers, StoredCell


class ComparedRow(NamedTuple):
    """Accuracies of both sides on the images that they have in common.

    Attributes:
        method: Method and variant; ``second vs first`` where methods are compared.
        model: Model; ``second vs first`` where it differs.
        dataset: Dataset.
        shift: Shift, or empty for the mean over the shifts of the dataset above it.
        images_first: Images of the first side.
        images_second: Images of the second side.
        common: Images in both; all numbers are about these.
        accuracy_first: Fraction.
        accuracy_second: Fraction.
        difference: Second minus first, with the paired bootstrap interval over images.
        p: Sign-flip mid-p of equal accuracy, which is McNemar's for one shift and seed.
        p_holm: The same, adjusted by Holm for all tests of the comparison.
    """

    method: str
    model: str
    dataset: str
    shift: str
    images_first: int
    images_second: int
    common: int
    accuracy_first: float
    accuracy_second: float
    difference: Interval
    p: float
    p_holm: float


class Pair(NamedTuple):
    """Both sides under one shift.

    Attributes:
        labels: Method, model, dataset and shift, as a row names them.
        images_first: Images of the first side.
        images_second: Images of the second side.
        image: (I,) ids of the common images, sorted.
        first: (I,) correctness of each common image, averaged over seeds.
        second: (I,) the same of the second side.
    """

    labels: tuple[str, str, str, str]
    images_first: int
    images_second: int
    image: NDArray[np.str_]
    first: Floats
    second: Floats


def pair(
    labels: tuple[str, str, str, str], shift: str, left: Sequence[StoredCell], right: Sequence[StoredCell]
) -> Pair:
    """Return two groups of cells, paired on the images that both have under a shift.

    Raises:
        BadInputError: If an image has other labels on the two sides.
    """
    tables = [_correctness(cells, shift) for cells in (left, right)]
    ids = [table[0] for table in tables]
    common, one, other = np.intersect1d(ids[0], ids[1], assume_unique=True, return_indices=True)
    if (tables[0][1][one] != tables[1][1][other]).any():
        label = " ".join(part for part in labels if part)
        raise BadInputError(f"{label} has other labels on the two sides; compare runs of the same data")
    return Pair(labels, len(ids[0]), len(ids[1]), common, tables[0][2][one], tables[1][2][other])


def _correctness(cells: Sequence[StoredCell], shift: str) -> tuple[NDArray[np.str_], Integers, Floats]:
    """Return the ids of the images under one shift, their labels, and how often each was right over seeds."""
    columns = ["image_id", "shift", "label", "prediction"]
    tables = [cell.store.read(cell.manifest.id, columns) for cell in cells]
    table = pa.concat_tables([t.filter(pc.equal(t.column("shift"), shift)) for t in tables])
    encoded = table.column("image_id").combine_chunks().dictionary_encode()
    label, prediction = table.column("label").to_numpy(), table.column("prediction").to_numpy()
    codes = encoded.indices.to_numpy()
    labels = np.zeros(len(encoded.dictionary), dtype=np.int64)
    labels[codes] = label
    return (
        np.array(encoded.dictionary.to_pylist(), dtype=np.str_),
        labels,
        np.bincount(codes, prediction == label) / np.bincount(codes),
    )


def compared_rows(pairs: Sequence[Pair], seed: int, resamples: int) -> tuple[ComparedRow, ...]:
    """Return one row per shift, and one over the shifts of a dataset where there are several."""
    blocks: dict[tuple[str, str, str], list[Pair]] = defaultdict(list)
    for one in pairs:
        blocks[one.labels[:3]].append(one)
    rows = [row for block in blocks.values() for row in _block(block, seed, resamples)]
    adjusted = holm([row.p for row in rows])
    return tuple(row._replace(p_holm=p) for row, p in zip(rows, adjusted, strict=True))


def _block(block: Sequence[Pair], seed: int, resamples: int) -> Iterator[ComparedRow]:
    for one in block:
        yield _row(one.labels, [one], seed, resamples)
    if len(block) > 1:
        yield _row((*block[0].labels[:3], ""), block, seed, resamples)


def _row(labels: tuple[str, str, str, str], block: Sequence[Pair], seed: int, resamples: int) -> ComparedRow:
    """Return the mean over shifts; every image is drawn, and its signs flipped, with all its rows."""
    ids, image = np.unique(np.concatenate([one.image for one in block]), return_inverse=True)
    change: Floats = np.concatenate([one.second - one.first for one in block])
    weight: Floats = np.concatenate([np.full(len(one.image), 1 / len(one.image)) for one in block]) / len(
        block
    )
    each, summed = (np.bincount(image, part).astype(np.float64) for part in (change * weight, change))
    return ComparedRow(
        *labels,
        max(one.images_first for one in block),
        max(one.images_second for one in block),
        len(ids),
        float(np.mean([one.first.mean() for one in block])),
        float(np.mean([one.second.mean() for one in block])),
        bootstrap_mean(each * len(ids), seed=seed, resamples=resamples),
        sign_flip(summed),
        1.0,
    )
