# SPDX-License-Identifier: Apache-2.0
"""Hugging Face datasets with an image and a class label column, through the optional package ``datasets``."""

from __future__ import annotations

import importlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tta_bench.data.dataset import Shift
from tta_bench.data.layouts.base import Index, spread
from tta_bench.errors import BadInputError

if TYPE_CHECKING:
    from tta_bench.data.images.source import ImageSource
    from tta_bench.data.layouts.reading import Reading


@lru_cache(maxsize=4)
def _loaded(repository: str, split: str) -> tuple[Any, str, str]:
    """Return the rows of a split, not decoded, with the names of its image and its label column."""
    try:
        package = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise BadInputError(
            f"hf:{repository} needs the package datasets, which is not installed; run `pip install datasets`"
        ) from error
    try:
        rows = package.load_dataset(repository, split=split)
    except (OSError, ValueError, package.exceptions.DatasetsError) as error:
        first = str(error).strip().partition("\n")[0]
        raise BadInputError(
            f"hf:{repository}:{split} cannot be loaded ({type(error).__name__}: {first}); check the name and the "
            "split, and connect once or set HF_HOME to a folder that has it"
        ) from error
    image = _column(repository, rows.features, "Image")
    label = _column(repository, rows.features, "ClassLabel")
    return rows.cast_column(image, package.Image(decode=False)), image, label


def _column(repository: str, features: Any, kind: str) -> str:
    found = [str(name) for name, feature in features.items() if type(feature).__name__ == kind]
    if len(found) != 1:
        raise BadInputError(
            f"hf:{repository} must have one {kind} column, got {', '.join(found) or 'none'} among "
            f"{', '.join(features)}; export it to class folders and use folder:PATH instead"
        )
    return found[0]


def hub_classes(repository: str, split: str) -> tuple[str, ...]:
    """Return the class names of a dataset in label order.

    Raises:
        BadInputError: If ``datasets`` is missing, or the dataset cannot be loaded or has other columns.
    """
    rows, _, label = _loaded(repository, split)
    return tuple(rows.features[label].names)


def open_hub(repository: str, split: str, shift: Shift, reading: Reading) -> ImageSource:
    """Return the images of a split, in rounds over the classes; ids are row numbers.

    Raises:
        BadInputError: If a label is none of the classes, as those of a test split may be.
    """
    from tta_bench.data.images.encoded import EncodedImages
    from tta_bench.data.images.files import Rows

    rows, image, label = _loaded(repository, split)
    numbers = [str(row) for row in range(len(rows))]
    index = Index(Path(), numbers, [f"{split}/{row}" for row in numbers], list(rows[label]))
    found = spread(index, len(rows.features[label].names))
    images = Rows(f"hf:{repository}:{split}", rows, image, [int(row) for row in found.files])
    return EncodedImages(images, found.ids, found.labels, shift, reading)
