# SPDX-License-Identifier: Apache-2.0
"""Levels as targets: accuracy of a teacher's intermediate layers, and of the students that are fitted to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch

from tta_bench.errors import IncompatibleError
from tta_bench.metrics.accuracy import Interval
from tta_bench.models.source import SourceModel
from tta_bench.studies.apm import Plan, curve_of, load_images, method_of


class LevelPoint(NamedTuple):
    """One level of the teacher, over all images; intervals are 95%.

    Attributes:
        level: Block of the teacher whose class token is the target.
        images: How many images, all shifts together.
        teacher: Accuracy of the teacher at that level.
        accuracy: Accuracy of the student that is fitted to it.
        gain: Student's accuracy less teacher's.
        agreement: Share of images on which both predict the same class.
    """

    level: int
    images: int
    teacher: Interval
    accuracy: Interval
    gain: Interval
    agreement: Interval


def study_levels(plan: Plan, advanced: Callable[[str], None] = lambda text: None) -> list[LevelPoint]:
    """Return one point for each level of the teacher, at the plan's last number of updates and first rate.

    Args:
        plan: What is studied.
        advanced: Called after every level.

    Raises:
        IncompatibleError: If the teacher has no class token.
        BadInputError: If the method fits no student.
    """
    method = replace(method_of(plan), lr=plan.lrs[0])
    source, shifts = load_images(plan)
    points = []
    for level in range(count_levels(source)):
        with torch.no_grad():
            each = [one._replace(features=source.encode_level(one.x, level)) for one in shifts]
        (point,) = curve_of(method, source, each, plan.updates[-1:], plan.seed)
        points.append(
            LevelPoint(level, point.images, point.teacher, point.accuracy, point.gain, point.agreement)
        )
        advanced(f"level {level}")
    return points


def count_levels(source: SourceModel) -> int:
    """Return how many levels a teacher has: its blocks.

    Raises:
        IncompatibleError: If it is not a vision transformer with a class token.
    """
    if source.transformer is None:
        raise IncompatibleError(
            f"levels need a teacher with a class token, which {source.name!r} has not; choose a vision transformer"
        )
    return len(source.transformer.norms)
