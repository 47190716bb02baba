# SPDX-License-Identifier: Apache-2.0
"""Turn facts into a dataset that can be opened, and keep its files for checking and preparing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tta_bench.data.catalogue.files import Files
from tta_bench.data.dataset import Dataset, OpenRequest, Shift

if TYPE_CHECKING:
    from tta_bench.data.images.source import ImageSource


@dataclass(frozen=True)
class OpenFiles:
    """Opens the shifts of a dataset from its files; what `Dataset.open` is for real datasets."""

    files: Files

    def __call__(self, opening: OpenRequest) -> ImageSource:
        """Return the images of one shift.

        Raises:
            BadInputError: If they are not there, or are not what they should be.
        """
        from tta_bench.data.layouts.opening import open_files

        return open_files(self.files, opening)


def declare(files: Files, *, source: Files | None = None, **facts: Any) -> Dataset:
    """Return the dataset of some files.

    Args:
        files: Where they lie and come from.
        source: The labelled source images, where methods may ask for them.
        facts: The other fields of `Dataset`.
    """
    return Dataset(
        name=files.name,
        open=OpenFiles(files),
        source_split=None if source is None else _source_split(source),
        **facts,
    )


def _source_split(files: Files) -> Callable[[], ImageSource]:
    # A part of the training images will do: methods ask for some thousands of them.
    return lambda: OpenFiles(files)(OpenRequest(Shift(files.name), options={"allow_incomplete": True}))


def files_of(dataset: Dataset) -> Files | None:
    """Return the files of a dataset, None if it is not kept in files of its own."""
    return dataset.open.files if isinstance(dataset.open, OpenFiles) else None
