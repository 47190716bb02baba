# SPDX-License-Identifier: Apache-2.0
"""Scores that the author of a method keeps beside it, so that a change of its numbers is noticed."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch

from tta_bench.checks.bench import Bench, benches
from tta_bench.checks.core import check, promise, skip_unless
from tta_bench.checks.trees import deviation
from tta_bench.method import Method

FILE = "golden.json"
STEPS = 3
LIMIT = {"float64": 1e-9, "float32": 1e-4}


def golden_record(method: Method) -> dict[str, Any]:
    """Return the scores (3, N, K) of a method's first steps on tiny models, by model and floating type.

    Write ``{"Tent": golden_record(Tent())}`` as JSON to ``golden.json`` beside the method's module, and the
    checks compare with it from then on. Numbers are in float64 where the card allows it.
    """
    return {_key(bench): _scores(bench).tolist() for bench in benches(method, precisions=("float64",))}


def _key(bench: Bench) -> str:
    return f"{bench.source.name} {str(bench.source.dtype).removeprefix('torch.')}"


def _scores(bench: Bench) -> torch.Tensor:
    return torch.stack(bench.steps(bench.init(), range(STEPS))[1])


@check(
    "Scores agree with the golden.json that lies beside the method.",
    applies="there is one, and the hyper-parameters are the defaults",
)
def golden_scores_agree(method: Method) -> None:
    """Compare the first steps with the stored scores."""
    cls = type(method)
    path = Path(inspect.getfile(cls)).with_name(FILE)
    skip_unless(path.is_file(), f"there is no {FILE} beside the method")
    stored = json.loads(path.read_text(encoding="utf-8")).get(cls.__name__)
    skip_unless(stored is not None, f"{path.name} says nothing of {cls.__name__}")
    skip_unless(method == cls(), "the hyper-parameters are not the defaults, which the stored scores are of")
    for bench in benches(method, precisions=("float64",)):
        key = _key(bench)
        promise(key in stored, f"{path} has no scores {bench.where}; write it again with golden_record")
        kept, found = torch.tensor(stored[key], dtype=bench.source.dtype), _scores(bench)
        promise(
            kept.shape == found.shape, f"{path} has scores {tuple(kept.shape)}, expected {tuple(found.shape)}"
        )
        limit, off = LIMIT[key.split()[1]], deviation(found, kept)
        promise(off <= limit, f"scores differ from {path} by {off:.1e}, more than {limit:.0e}, {bench.where}")
