# SPDX-License-Identifier: Apache-2.0
"""A threshold between two groups of scores, by Otsu's method, and a soft one that a loss can move."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 256


def otsu(scores: Tensor) -> Tensor:
    """Return the threshold (0-d) that parts scores (N,) into the two groups whose means differ most, by their sizes.

    The histogram has 256 equal bins over the range; the threshold is the centre of the last bin of the lower group,
    of the first such bin among equals.
    """
    low, high = scores.min(), scores.max()
    places = ((scores - low) / (high - low).clamp(min=torch.finfo(scores.dtype).tiny) * BINS).long()
    counts = torch.bincount(places.clamp(max=BINS - 1), minlength=BINS).to(scores.dtype)
    steps = torch.arange(BINS, dtype=scores.dtype, device=scores.device)
    centres = low + (high - low) * (steps + 0.5) / BINS
    below, sums = counts.cumsum(0), (counts * centres).cumsum(0)
    above = below[-1] - below
    apart = sums / below.clamp(min=1) - (sums[-1] - sums) / above.clamp(min=1)
    spread = (below * above * apart.square())[:-1]
    return centres[spread.argmax()]


def separation(scores: Tensor, threshold: Tensor, width: float, *, weighted: bool) -> Tensor:
    """Return the negative squared distance of the means of the scores on both sides of a soft threshold.

    Args:
        scores: (N,).
        threshold: 0-d.
        width: Of the sigmoid that says which side a score is on.
        weighted: Whether it is weighed by ``p (1 - p)``, p the share of the upper side.
    """
    upper = ((scores - threshold) / width).sigmoid()
    means = [(side * scores).sum() / side.sum().clamp(min=1e-12) for side in (upper, 1 - upper)]
    share = upper.mean()
    return -(means[0] - means[1]).square() * (share * (1 - share) if weighted else 1)
