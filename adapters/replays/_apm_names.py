# SPDX-License-Identifier: Apache-2.0
"""Names and layouts of APM's golden tensors and of the student's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ATTENTION = "little_self_attention"
SAME = {
    "patch.bias": "conv1.bias",
    "fc1.bias": "fc1.bias",
    "fc2.weight": "fc4.weight",
    "fc2.bias": "fc4.bias",
    "fc3.weight": "fc5.weight",
    "fc3.bias": "fc5.bias",
    "project.weight": "feat_proj_head.weight",
    "project.bias": "feat_proj_head.bias",
    "query": "little_query",
    "out.weight": f"{ATTENTION}.out_proj.weight",
    "out.bias": f"{ATTENTION}.out_proj.bias",
}
"""The student's tensors that are golden tensors as they stand."""
PATCH, FIRST = "conv1.weight", "fc1.weight"
PROJECTIONS = {"weight": f"{ATTENTION}.in_proj_weight", "bias": f"{ATTENTION}.in_proj_bias"}


def from_golden(golden: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return one student's tensors (1, ...) from golden ones.

    Args:
        golden: By golden names, without a leading axis.
        shapes: Shapes of the student's tensors by its own names.
    """
    found = {name: golden[other] for name, other in SAME.items()}
    found["patch.weight"] = golden[PATCH].flatten()
    parts = ("fc1.column", "fc1.across", "fc1.down")
    found |= zip(parts, torch.split(golden[FIRST], [shapes[part][1] for part in parts], dim=1), strict=True)
    for leaf, other in PROJECTIONS.items():
        found |= zip((f"q.{leaf}", f"k.{leaf}", f"v.{leaf}"), golden[other].chunk(3), strict=True)
    return {name: found[name].reshape(1, *shape) for name, shape in shapes.items()}


def to_golden(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return golden tensors (N, ...) by their names from the tensors of N students."""
    found = {other: named[name] for name, other in SAME.items()}
    patch = named["patch.weight"]
    side = round((patch.shape[1] / 3) ** 0.5)
    found[PATCH] = patch.reshape(-1, 1, 3, side, side)
    found[FIRST] = torch.cat([named["fc1.column"], named["fc1.across"], named["fc1.down"]], dim=2)
    for leaf, other in PROJECTIONS.items():
        found[other] = torch.cat([named[f"{part}.{leaf}"] for part in "qkv"], dim=1)
    return found
