# SPDX-License-Identifier: Apache-2.0
"""Choose the images of pocket-fashion from the four idx files of Fashion-MNIST.

Run ``python -m tta_bench.pocket.fashion.subset --files FOLDER --out DIR``. The same files give the same images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from tta_bench.data.layouts.idx import read_idx, write_idx
from tta_bench.errors import BadInputError
from tta_bench.pocket.fashion.datasets import DATA

PER_CLASS = {"t10k": 200, "train": 100}
SEED = 0


def chosen(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Return the positions of the first images of each class, in rounds over the classes.

    Each round holds one image of every class in a new random order, so that the first N are balanced and no class
    always follows another.

    Args:
        labels: (n,) class of each image.
        per_class: How many of each class.

    Raises:
        BadInputError: If a class has fewer.
    """
    classes = np.unique(labels)
    rows = [np.flatnonzero(labels == label)[:per_class] for label in classes]
    for label, row in zip(classes, rows, strict=True):
        if len(row) < per_class:
            raise BadInputError(
                f"class {label} must have {per_class} images, got {len(row)}; use the whole files"
            )
    generator = np.random.default_rng(SEED)
    return np.concatenate([one[generator.permutation(len(one))] for one in np.stack(rows, 1)])


def write_subset(files: Path, out: Path) -> dict[str, str]:
    """Write the chosen images and labels as idx files; return the SHA-256 of each.

    Args:
        files: Folder with the four idx files of Fashion-MNIST.
        out: Folder to write to.
    """
    out.mkdir(parents=True, exist_ok=True)
    sums = {}
    for split, per_class in PER_CLASS.items():
        names = [f"{split}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
        images, labels = (read_idx(files / name, 3 - 2 * index) for index, name in enumerate(names))
        rows = chosen(labels, per_class)
        for name, values in zip(names, (images, labels), strict=True):
            write_idx(out / name, values[rows])
            sums[name] = sha256((out / name).read_bytes()).hexdigest()
    return sums


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tta_bench.pocket.fashion.subset", description=__doc__)
    parser.add_argument("--files", type=Path, required=True, help="folder with the four idx files")
    parser.add_argument("--out", type=Path, default=DATA, help="folder to write to")
    options = parser.parse_args(arguments)
    for name, total in write_subset(options.files, options.out).items():
        print(f"{total}  {name}")  # noqa: T201  what the command is for


if __name__ == "__main__":
    main()
