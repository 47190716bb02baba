# SPDX-License-Identifier: Apache-2.0
"""Norm layers below the last stage, which SAR and DeYO adapt, and the statistics that BatchNorm layers store."""

from __future__ import annotations

from collections.abc import Sequence

from tta_bench.errors import UnknownNameError
from tta_bench.method import SourceModel
from tta_bench.optim import Tensors

NORMS = ("batch", "group", "layer", "rms")


def lower_norms(source: SourceModel, layers: Sequence[str] = ()) -> Tensors:
    """Return the affine tensors of the norm layers that are adapted.

    Args:
        source: The source model.
        layers: Names of norm layers, to take instead of those below the last stage.

    Raises:
        UnknownNameError: If there is no norm layer of a name.
    """
    if not layers:
        return source.normalisation(stages=slice(0, -1))
    known = {layer.name: layer.tensors for layer in source.layers if layer.kind in NORMS}
    for name in layers:
        if name not in known:
            raise UnknownNameError(f"norm layer of {source.name}", name, known)
    return {tensor: source.params[tensor] for name in layers for tensor in known[name]}


def stored_statistics(source: SourceModel) -> Tensors:
    """Return the means and variances that the BatchNorm layers store, by tensor name; empty without such layers."""
    layers = [layer.name for layer in source.layers if layer.kind == "batch"]
    names = [f"{layer}.{leaf}" for layer in layers for leaf in ("running_mean", "running_var")]
    return {name: source.buffers[name] for name in names if name in source.buffers}
