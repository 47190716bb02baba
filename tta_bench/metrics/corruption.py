# SPDX-License-Identifier: Apache-2.0
"""Corruption error relative to a reference model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tta_bench.errors import BadInputError

Errors = Mapping[str, Sequence[float]]


def corruption_error(
    errors: Errors,
    reference: Errors,
    *,
    clean: float | None = None,
    reference_clean: float | None = None,
) -> float:
    """Return the mean corruption error (mCE), or the relative one if the clean errors are given.

    Args:
        errors: Corruption to error rates (fractions), one per severity.
        reference: The same of the reference model, over the same corruptions and severities.
        clean: Error rate of the model without corruption.
        reference_clean: Error rate of the reference model without corruption.

    Returns:
        A ratio: 1 is as robust as the reference, lower is better.

    Raises:
        BadInputError: If corruptions or severities differ, only one clean error is given, or the reference
            makes no error to compare with.

    Source: Hendrycks and Dietterich, arXiv:1903.12261, section 3.
    """
    if not errors or errors.keys() != reference.keys():
        raise BadInputError(
            "errors and reference should cover the same corruptions, "
            f"got {sorted(errors)} and {sorted(reference)}"
        )
    if (clean is None) != (reference_clean is None):
        raise BadInputError("the relative corruption error needs the clean error of both models, got one")
    ratios = []
    for name, rates in errors.items():
        if len(rates) != len(reference[name]) or not len(rates):
            raise BadInputError(
                f"{name} should have the same severities in both, got {rates} and {reference[name]}"
            )
        above = sum(rates) - len(rates) * (clean or 0.0)
        reference_above = sum(reference[name]) - len(rates) * (reference_clean or 0.0)
        if reference_above <= 0:
            raise BadInputError(
                f"the reference should err more under {name} than without it, got {reference[name]}"
            )
        ratios.append(above / reference_above)
    return float(np.mean(ratios))
