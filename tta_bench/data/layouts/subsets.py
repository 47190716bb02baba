# SPDX-License-Identifier: Apache-2.0
"""Subsets that have a name of their own in the literature."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tta_bench.data.layouts.locate import roots
from tta_bench.data.layouts.subset_names import ROBUSTBENCH
from tta_bench.errors import BadInputError

LIST_FILE = "imagenet_test_image_ids.txt"
LIST_SIZE = 5000


def named_subset(name: str, ids: Sequence[str], known: Sequence[str]) -> np.ndarray | None:
    """Return the positions of a named subset in the order of its list; None for ``full``, ``first-N``, ``seeded-N``.

    Args:
        name: Of the subset.
        ids: The ids of all images.
        known: Named subsets of this dataset.

    Raises:
        BadInputError: If the dataset has no such subset, its list is nowhere, or some of its images are missing.
    """
    if name != ROBUSTBENCH:
        return None
    if name not in known:
        raise BadInputError(
            f"--subset {name} is a list of ImageNet validation images, which this dataset does not have; "
            "use full, first-N or seeded-N"
        )
    path = robustbench_list()
    wanted = path.read_text(encoding="utf-8").split()
    if len(wanted) != LIST_SIZE:
        raise BadInputError(f"{path} must name {LIST_SIZE} images, got {len(wanted)}; fetch it again")
    at = {image: position for position, image in enumerate(ids)}
    missing = [image for image in wanted if image not in at]
    if missing:
        raise BadInputError(
            f"{len(missing)} of the {LIST_SIZE} images of --subset {name} are not in the data, {missing[0]} among "
            "them; complete the folder (`tta-bench data check` shows what is missing) or use first-N"
        )
    return np.array([at[image] for image in wanted], dtype=np.int64)


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
        f"--subset {ROBUSTBENCH} needs {LIST_FILE}, tried {', '.join(map(str, tried))}; install it with "
        "`pip install 'tta-bench[robustbench]'` or copy the file into a folder of TTA_BENCH_DATA"
    )
