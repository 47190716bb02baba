# SPDX-License-Identifier: Apache-2.0
"""Initial states that depend on source data, computed once and kept in the cache folder.

`Method.init` is a deterministic function of the method, its hyper-parameters, the weights, the source split, the
classes, the precision and the machine. RMT's warm-up or EATA's Fisher pass over the source images would otherwise run
once for every shift. What is kept is hashed and checked when it is read; anything odd is computed again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tta_bench.engine.kept import INITIAL, SUFFIX, folder_of, read_kept, touch, write_kept
from tta_bench.method import State
from tta_bench.spec import Manifest, digest

SEPARATOR = "\x1f"
FACTS = (
    "weights", "preprocessing", "normalisation", "class_list", "label_mask", "precision", "device", "prompts",
    "batch_size", "source_split", "seed",
)  # fmt: skip
"""Protocol facts that an initial state depends on."""


class Initial(NamedTuple):
    """An initial state, and what it took to compute it.

    Attributes:
        state: The state.
        init_ms: Milliseconds when it was computed.
    """

    state: State
    init_ms: float


def initial_key(manifest: Manifest, stream_length: int | None) -> str:
    """Return the hash of everything that the initial state of a cell depends on."""
    cell, protocol, machine = manifest.cell, manifest.protocol, manifest.machine
    facts = {name: getattr(protocol, name) for name in FACTS}
    method = [cell.method, cell.method_hash, cell.hyperparameters, cell.plugin_code, cell.in_process]
    where = [machine.device_name, machine.instructions, machine.threads, machine.torch_build]
    return digest([method, facts, stream_length, where])


def read_initial(key: str, device: torch.device) -> Initial | None:
    """Return the kept state of a key; None where there is none or it is damaged."""
    path = _path(key)
    kept = read_kept(path, key)
    if kept is None:
        return None
    touch(path)
    return Initial(
        _nested(kept.tensors, json.loads(kept.facts["order"]), device), float(kept.facts["init_ms"])
    )


def keep_initial(key: str, initial: Initial, about: str = "") -> None:
    """Keep a state that is a nesting of dictionaries of tensors; any other, or a full disk, keeps nothing.

    Args:
        key: From `initial_key`.
        initial: The state.
        about: The cell that it is of, for people.
    """
    leaves = dict(_leaves(initial.state))
    if not leaves or any(leaf is None for leaf in leaves.values()):
        return
    tensors = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    facts = {"order": json.dumps(list(tensors)), "init_ms": repr(initial.init_ms), "about": about}
    try:
        write_kept(_path(key), key, tensors, facts)
    except OSError:
        return


def _path(key: str) -> Path:
    return folder_of(INITIAL) / f"{key}{SUFFIX}"


def _leaves(state: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, Tensor | None]]:
    """Yield the leaves of nested dictionaries by path; None for what is neither a dictionary nor a tensor."""
    if isinstance(state, Tensor):
        yield SEPARATOR.join(prefix), state
    elif (
        isinstance(state, Mapping)
        and type(state) is dict
        and state
        and all(isinstance(k, str) for k in state)
    ):
        for key, value in state.items():
            yield from _leaves(value, (*prefix, key))
    else:
        yield SEPARATOR.join(prefix), None


def _nested(leaves: Mapping[str, Tensor], order: list[str], device: torch.device) -> State:
    """Return the nested dictionaries of leaves, in their first order."""
    state: dict[str, Any] = {}
    for name in order:
        *parents, last = name.split(SEPARATOR)
        place = state
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = leaves[name].to(device, copy=True)
    return state
