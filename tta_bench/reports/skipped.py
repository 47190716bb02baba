# SPDX-License-Identifier: Apache-2.0
"""Sentences on images that a run left out because they cannot be decoded."""

from __future__ import annotations

from collections.abc import Collection

from tta_bench.reports.load import load_cells

SHOWN = 3


def skipped_images(folder: str, cells: Collection[str]) -> list[str]:
    """Return one sentence per dataset of which images were left out; none where all were used.

    Args:
        folder: URL of a run folder.
        cells: Ids of the cells to look at.
    """
    skipped: dict[str, set[str]] = {}
    for one in load_cells([folder], cells):
        skipped.setdefault(one.cell.dataset, set()).update(one.manifest.notes.bad_images)
    return [_sentence(dataset, sorted(ids)) for dataset, ids in sorted(skipped.items()) if ids]


def _sentence(dataset: str, ids: list[str]) -> str:
    what = "1 image" if len(ids) == 1 else f"{len(ids)} images"
    rest = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"skipped {what} of {dataset} that cannot be decoded: {', '.join(ids[:SHOWN])}{rest}"
