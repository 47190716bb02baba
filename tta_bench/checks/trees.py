# SPDX-License-Identifier: Apache-2.0
"""Compare, copy and save the nested tensors that methods carry, naming the leaf where two differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by path, e.g. ``['params']['fc.weight']``."""
    return {pytree.keystr(path) or "the whole": leaf for path, leaf in pytree.tree_flatten_with_path(tree)[0]}


def tensors(tree: Any) -> dict[str, Tensor]:
    """Return the leaves that are tensors, by path."""
    return {path: leaf for path, leaf in leaves(tree).items() if isinstance(leaf, Tensor)}


def snapshot(tree: Any) -> Any:
    """Return a copy of a tree that shares no memory with it."""
    return pytree.tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, tree)


def difference(first: Any, second: Any) -> str:
    """Return which leaf of two trees differs in its presence, type, shape or any bit; empty if none does."""
    one, two = leaves(first), leaves(second)
    if one.keys() != two.keys():
        return f"{sorted(one.keys() ^ two.keys())[0]} is in only one of them"
    for path, value in one.items():
        if not _same(value, two[path]):
            return f"{path} differs"
    return ""


def _same(first: Any, second: Any) -> bool:
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
        return type(first) is type(second) and bool(first == second)
    if (first.dtype, first.shape, first.device) != (second.dtype, second.shape, second.device):
        return False
    if not first.dtype.is_floating_point:
        return torch.equal(first, second)
    return torch.equal(first.isnan(), second.isnan()) and torch.equal(first.nan_to_num(), second.nan_to_num())


def deviation(first: Tensor, second: Tensor) -> float:
    """Return the largest difference, relative to the largest value where that is above 1; NaN counts as infinite."""
    scale = max(1.0, float(second.abs().max()))
    largest = float((first - second).abs().max()) / scale
    return largest if largest == largest else float("inf")


def storages(tree: Any) -> set[int]:
    """Return the addresses of the memory behind the tensors of a tree."""
    found = (tensor.untyped_storage() for tensor in tensors(tree).values())
    return {storage.data_ptr() for storage in found if storage.nbytes()}


def packed(tree: Any) -> bytes:
    """Return the tensors of a tree in the safetensors format; shared memory is written once for each leaf."""
    named = {path: tensor.detach().clone().contiguous() for path, tensor in tensors(tree).items()}
    return safetensors.torch.save(named)


def unpacked(data: bytes, like: Any) -> Any:
    """Return the tree that was packed, in the structure of another."""
    stored = safetensors.torch.load(data)
    paths: Sequence[str] = list(leaves(like))
    return pytree.tree_unflatten([stored[path] for path in paths], pytree.tree_structure(like))
