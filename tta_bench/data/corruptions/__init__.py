# SPDX-License-Identifier: Apache-2.0
"""The 19 common corruptions at five severities, batched and reproducible per image.

`corrupt` is the entry point; `corrupt_folder` applies it to a folder of images. `CORRUPTIONS` are the fifteen
of the benchmark in the order that test-time adaptation papers use; `EXTRA` are the four held out for validation.
"""

from tta_bench.data.corruptions.base import Options
from tta_bench.data.corruptions.constants import CORRUPTIONS, EXTRA, GROUPS, SCALES, SEVERITIES, Scale
from tta_bench.data.corruptions.engine import corrupt
from tta_bench.data.corruptions.folder import FolderReport, corrupt_folder

__all__ = [
    "CORRUPTIONS",
    "EXTRA",
    "GROUPS",
    "SCALES",
    "SEVERITIES",
    "FolderReport",
    "Options",
    "Scale",
    "corrupt",
    "corrupt_folder",
]
