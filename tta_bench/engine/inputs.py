# SPDX-License-Identifier: Apache-2.0
"""Inputs of a step: features in place of images, draws on the device, and the time charged for features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tta_bench.engine.feature_files import Charged
from tta_bench.method import Inputs, Method
from tta_bench.models.source import SourceModel


def encoded(source: SourceModel, inputs: Inputs) -> Inputs:
    """Return the inputs with raw features (N, D), and those of the views (N, V, D) of which view 0 is the image."""
    assert inputs.images is not None
    if inputs.views is None:
        return inputs._replace(features=source.encode(inputs.images))
    features = torch.unflatten(source.encode(inputs.views.flatten(0, 1)), 0, inputs.views.shape[:2])
    return inputs._replace(features=features[:, 0], view_features=features)


def in_feature_space(found: Tensor, method: Method, draws: Any) -> Inputs:
    """Return inputs without images, given features (N, D), or (N, V, D) where there are views."""
    features = found[:, 0] if found.ndim == 3 else found
    views = None if method.view_policy() is None else found if found.ndim == 3 else found[:, None]
    return Inputs(images=None, features=features, view_features=views, draws=draws)


def charges(found: Charged) -> dict[str, Any]:
    """Return the columns of what each image is charged for its features."""
    columns = {"encode_ms": found.encode_ms, "cached": found.cached}
    return columns if found.view_ms is None else {**columns, "view_ms": found.view_ms}


def to_device(draws: Any, device: torch.device) -> Any:
    """Return draws with their tensors on a device."""
    return pytree.tree_map(lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, draws)
