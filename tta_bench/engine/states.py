# SPDX-License-Identifier: Apache-2.0
"""States as safetensors: nested dictionaries, lists and tuples of tensors, bit for bit, with a checksum."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.utils import _pytree as pytree

from tta_bench.engine.kept import checksum
from tta_bench.method import State

UNREADABLE = (SafetensorError, struct.error, KeyError, ValueError, TypeError, IndexError, RuntimeError)
"""Exceptions raised when a damaged state is read."""


def state_bytes(state: State) -> int:
    """Return the bytes of a state's tensors; memory that several share counts once."""
    leaves = [leaf for leaf in pytree.tree_leaves(state) if isinstance(leaf, Tensor)]
    storages = {leaf.untyped_storage().data_ptr(): leaf.untyped_storage().nbytes() for leaf in leaves}
    return sum(storages.values())


def dump_state(state: State, facts: Mapping[str, str] | None = None) -> bytes | None:
    """Return a state as the bytes of a safetensors file; None if it holds anything but tensors in plain containers.

    Args:
        state: The state.
        facts: Texts to keep with it.
    """
    leaves: list[Tensor] = []
    try:
        shape = _shape(state, leaves)
    except TypeError:
        return None
    tensors = {str(index): _packed(leaf) for index, leaf in enumerate(leaves)}
    places = [[leaf.device.type != "cpu", _strides(leaf)] for leaf in leaves]
    kept = {"facts": dict(facts or {}), "shape": shape, "places": places, "sum": checksum(tensors)}
    return bytes(save(tensors, {"state": json.dumps(kept)}))


def load_state(content: bytes, device: torch.device) -> tuple[State, dict[str, str]]:
    """Return the state that `dump_state` gave, and its facts.

    Args:
        content: The bytes.
        device: Where tensors go that were not on the CPU.

    Raises:
        ValueError: If they are not what was written.
    """
    try:
        (length,) = struct.unpack("<Q", content[:8])
        kept = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["state"])
        tensors = load(content)
        if checksum(tensors) != kept["sum"]:
            raise ValueError("its checksum is another")
        leaves = [
            _unpacked(tensors[str(index)], strides, device if moved else torch.device("cpu"))
            for index, (moved, strides) in enumerate(kept["places"])
        ]
        return _filled(kept["shape"], leaves), kept["facts"]
    except UNREADABLE as error:
        raise ValueError(f"not a state: {error}") from error


def _shape(value: Any, leaves: list[Tensor]) -> Any:
    """Return the containers of a state as JSON holds them, with numbers in the place of tensors."""
    if isinstance(value, Tensor):
        leaves.append(value)
        return len(leaves) - 1
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {"dict": [[key, _shape(one, leaves)] for key, one in value.items()]}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_shape(one, leaves) for one in value]}
    raise TypeError(type(value).__name__)


def _filled(shape: Any, leaves: list[Tensor]) -> Any:
    if isinstance(shape, int):
        return leaves[shape]
    ((kind, items),) = shape.items()
    if kind == "dict":
        return {key: _filled(one, leaves) for key, one in items}
    each = [_filled(one, leaves) for one in items]
    return tuple(each) if kind == "tuple" else each


def _strides(leaf: Tensor) -> list[int] | None:
    """Return the strides of a tensor that is dense in another order, as one in channels-last memory format is."""
    dense = torch.ops.aten.is_non_overlapping_and_dense(leaf)
    return list(leaf.stride()) if dense and not leaf.is_contiguous() else None


def _packed(leaf: Tensor) -> Tensor:
    return leaf.detach().to("cpu", copy=True).contiguous()


def _unpacked(leaf: Tensor, strides: list[int] | None, device: torch.device) -> Tensor:
    if strides is None:
        return leaf.to(device)
    return torch.empty_strided(leaf.shape, strides, dtype=leaf.dtype, device=device).copy_(leaf)
