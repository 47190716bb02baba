# SPDX-License-Identifier: Apache-2.0
"""Initial states that depend on source data, computed once and kept in the cache folder.

`Method.init` is a deterministic function of the method, its hyper-parameters, the weights, the source split, the
classes, the precision and the machine. RMT's warm-up or EATA's Fisher pass over the source images would otherwise run
once for every shift. What is kept is hashed and checked when it is read; anything odd is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tta_bench.data.layouts.locate import cache_folder
from tta_bench.method import State
from tta_bench.spec import Manifest, digest

FOLDER = "initial-states"
MOST_BYTES = 2 << 30
"""Size of the folder above which the states that were used longest ago are removed."""
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
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            facts = file.metadata() or {}
            leaves = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if facts.get("sum") != _sum(leaves):
            return None
        path.touch()
        return Initial(_nested(leaves, json.loads(facts["order"]), device), float(facts["init_ms"]))
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def keep_initial(key: str, initial: Initial) -> None:
    """Keep a state that is a nesting of dictionaries of tensors; any other, or a full disk, keeps nothing."""
    leaves = dict(_leaves(initial.state))
    if not leaves or any(leaf is None for leaf in leaves.values()):
        return
    tensors = {
        name: leaf.detach().cpu().contiguous().clone() for name, leaf in leaves.items() if leaf is not None
    }
    facts = {"sum": _sum(tensors), "order": json.dumps(list(tensors)), "init_ms": repr(initial.init_ms)}
    path = _path(key)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, facts)
        part.replace(path)
        _prune(path)
    except (OSError, SafetensorError):
        part.unlink(missing_ok=True)


def _path(key: str) -> Path:
    return cache_folder() / FOLDER / f"{key}.safetensors"


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
        place[last] = leaves[name].to(device)
    return state


def _sum(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _prune(kept: Path) -> None:
    """Remove the states that were used longest ago, but for the one that was just written."""
    files = sorted(kept.parent.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    size = sum(path.stat().st_size for path in files)
    for path in files:
        if size <= MOST_BYTES or path == kept:
            return
        size -= path.stat().st_size
        path.unlink(missing_ok=True)
