# SPDX-License-Identifier: Apache-2.0
"""Subsets that have a name of their own in the literature."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tta_bench.data.dataset import Shift
from tta_bench.data.layouts.base import read_text
from tta_bench.data.layouts.locate import roots
from tta_bench.data.layouts.subset_names import ROBUSTBENCH
from tta_bench.data.layouts.walk import without_suffix
from tta_bench.errors import BadInputError
from tta_bench.spec.protocol import INCOMPLETE

if TYPE_CHECKING:
    from tta_bench.data.layouts.reading import Reading

LIST_FILE = "imagenet_test_image_ids.txt"
LIST_SIZE = 5000


def named_subset(name: str, ids: Sequence[str], shift: Shift, reading: Reading) -> np.ndarray | None:
    """Return the positions of a named subset in the order of its list; None for ``full``, ``first-N``, ``seeded-N``.

    Args:
        name: Of the subset.
        ids: The ids of all images.
        shift: That they are of.
        reading: How they are read.

    Raises:
        BadInputError: If the dataset has no such subset, its list is nowhere, or some of its images are missing; for
            the other subsets, if there are fewer images than the dataset has and the run does not allow it.
    """
    if name != ROBUSTBENCH:
        _check_complete(len(ids), shift, reading)
        return None
    if name not in reading.subsets:
        raise BadInputError(
            f"subset {name} is a list of ImageNet validation images, which this dataset does not have; use full, "
            "first-N or seeded-N",
            options=("subset",),
        )
    path = robustbench_list()
    wanted = [without_suffix(image) for image in read_text(path).split()]
    if len(wanted) != LIST_SIZE:
        raise BadInputError(f"{path} must name {LIST_SIZE} images, got {len(wanted)}; fetch it again")
    at = {image: position for position, image in enumerate(ids)}
    missing = [image for image in wanted if image not in at]
    if missing:
        raise BadInputError(
            f"{len(missing)} of the {LIST_SIZE} images of subset {name} are not in the data, {missing[0]} among "
            "them; complete the folder (`tta-bench data check` shows what is missing) or use first-N",
            options=("subset",),
        )
    return np.array([at[image] for image in wanted], dtype=np.int64)


def _check_complete(found: int, shift: Shift, reading: Reading) -> None:
    if found and found < reading.expected and not reading.allow_incomplete:
        raise BadInputError(
            f"{shift} has {reading.expected:,} images, but only {found:,} are there; complete the folder (`tta-bench "
            f"data check {shift.dataset}` shows what is missing), or use allow_incomplete=True, which tables then "
            "say",
            options=("allow_incomplete",),
        )


def origin_of(found: int, reading: Reading) -> str:
    """Return where images come from, and how many are missing where the run allows that."""
    if not found < reading.expected or not reading.allow_incomplete:
        return reading.origin
    return f"{reading.origin}{INCOMPLETE}{found:,} of {reading.expected:,} images"


def robustbench_list() -> Path:
    """Return the file that lists the 5,000 images: in a data root, or in the installed robustbench package.

    Raises:
        BadInputError: If it is in neither.
    """
    tried = [root / LIST_FILE for root in roots()]
    package = importlib.util.find_spec("robustbench")
    for folder in (package.submodule_search_locations or ()) if package else ():
        tried.append(Path(folder) / "helper_files" / LIST_FILE)
    for path in tried:
        if path.is_file():
            return path
    raise BadInputError(
        f"subset {ROBUSTBENCH} needs {LIST_FILE}, tried {', '.join(map(str, tried))}; install it with "
        "`pip install 'tta-bench[robustbench]'` or copy the file into a folder of TTA_BENCH_DATA",
        options=("subset",),
    )
