# SPDX-License-Identifier: Apache-2.0
"""Turn the scores of one step into the columns of its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tta_bench.data.stream import Stream
from tta_bench.engine.meter import PHASES
from tta_bench.engine.ports import SourceScores
from tta_bench.models.source import SourceModel

TOP = 5


def probabilities(scores: Tensor, output: str) -> Tensor:
    """Return probabilities (N, K) float64 on the CPU, by the type of the scores."""
    values = scores.detach().to("cpu", torch.float64)
    if output == "logits":
        return values.softmax(-1)
    return values / values.sum(-1, keepdim=True).clamp_min(1e-12) if output == "votes" else values


def score_columns(scores: Tensor, output: str) -> dict[str, Any]:
    """Return prediction, confidence, entropy (nats) and top 5 of each image.

    The order of the classes is read from the scores themselves, where no two are made equal by rounding; the
    lowest index wins a tie. Scores that are not finite count as the lowest.
    """
    values = scores.detach().cpu().to(torch.float64)
    finite = values.isfinite()
    values = values.where(finite, -torch.inf)
    ranked = values.sort(stable=True, dim=-1, descending=True).indices[:, :TOP]
    weights = values if output == "logits" else values.where(finite, 0.0)
    p = probabilities(weights, output).nan_to_num(0.0)
    terms = torch.special.entr(p)
    return {
        "prediction": ranked[:, 0].numpy().astype(np.int32),
        "confidence": p.gather(1, ranked[:, :1]).squeeze(1).numpy().astype(np.float32),
        "entropy": terms.sum(-1).numpy().astype(np.float32),
        "top5": ranked.numpy().astype(np.int32),
    }


def source_scores(logits: Tensor) -> SourceScores:
    """Return predictions and confidences of the source model's logits (N, K)."""
    columns = score_columns(logits, "logits")
    return SourceScores(columns["prediction"].astype(np.int64), columns["confidence"])


@torch.no_grad()
def predicted(source: SourceModel, stream: Stream, logits: Callable[[Tensor], Tensor]) -> SourceScores:
    """Return what a source model alone says of a stream, by a function that gives its logits."""
    batches = (batch.images.to(source.device).to(source.dtype) / 255 for batch in stream.from_row())
    each = [source_scores(logits(images)) for images in batches]
    return SourceScores(*(np.concatenate(column) for column in zip(*each, strict=True)))


def clock_columns(seconds: Mapping[str, float], images: int) -> dict[str, Any]:
    """Return milliseconds per image of each phase, amortised over the step; None where a phase did not run."""
    return {f"{phase}_ms": 1e3 * seconds[phase] / images if phase in seconds else None for phase in PHASES}


class Collected:
    """Rows of one cell in memory; satisfies `tta_bench.engine.ports.RowWriter`.

    Attributes:
        batches: The columns of each batch.
    """

    def __init__(self) -> None:
        self.batches: list[Mapping[str, Any]] = []

    def append(self, columns: Mapping[str, Any]) -> None:
        """Keep the rows of one batch."""
        self.batches.append(columns)

    def keep_state(self, dump: Callable[[], bytes | None]) -> None:
        """Keep nothing: what was collected is thrown away."""

    def close(self) -> None:
        """Do nothing: what was collected is thrown away."""
