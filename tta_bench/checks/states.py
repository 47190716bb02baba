# SPDX-License-Identifier: Apache-2.0
"""Checks of what a method carries from step to step."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from tta_bench.checks.bench import BATCH, LOWER, benches
from tta_bench.checks.core import check, promise
from tta_bench.checks.trees import difference, leaves, packed, storages, tensors, unpacked
from tta_bench.method import Method


@check("The state is a nest of tensors.")
def state_is_tensors(method: Method) -> None:
    """Look at every leaf, before and after two steps."""
    for bench in benches(method):
        for state in (bench.init(), bench.adapted()):
            for path, leaf in leaves(state).items():
                kind = type(leaf).__name__
                promise(
                    isinstance(leaf, Tensor),
                    f"{path} of the state is a {kind}; use a 0-d tensor or leave it out",
                )


@check(
    "The state keeps its structure, shapes, types and devices, but for the leaves that the card says grow."
)
def state_keeps_its_shape(method: Method) -> None:
    """Compare the state before and after steps on batches of two sizes."""
    for bench in benches(method):
        state = bench.init()
        sizes = (1, 1) if bench.alone and not method.card.independent else (BATCH, BATCH - 1)
        for seed, n in enumerate(sizes):
            after = bench.adapt(state, bench.inputs(n, seed)).state
            change = _changed(state, after, method.card.grows)
            promise(not change, f"{change} after a step {bench.where}{_advice(method, change)}")
            state = after


def _advice(method: Method, found: str) -> str:
    """Return what the card would say if the change is meant."""
    grown = re.match(r"\['(\w+)'\].* of the state (appeared|went from \()", found)
    if grown is None:
        return ""
    names = ", ".join(repr(name).replace("'", '"') for name in dict.fromkeys((*method.card.grows, grown[1])))
    why = (
        "a torch optimiser makes its tensors at its first step"
        if grown[1] == "optimizer"
        else "if that is meant"
    )
    return f"; {why}: put fixed_shapes=False, grows=({names},) into the Card"


def _changed(before: Any, after: Any, grows: tuple[str, ...]) -> str:
    """Return what changed and may not."""
    old, new = tensors(before), tensors(after)
    for path in sorted(old.keys() | new.keys()):
        free = any(f"'{name}'" in path for name in grows)
        if path not in old or path not in new:
            if not free:
                return f"{path} of the state {'appeared' if path in new else 'was lost'}"
            continue
        one, two = old[path], new[path]
        if one.device != two.device:
            return f"{path} of the state went from {one.device} to {two.device}"
        if one.dtype != two.dtype:
            return f"{path} of the state went from {one.dtype} to {two.dtype}"
        if one.shape != two.shape and not (free and one.shape[1:] == two.shape[1:]):
            return f"{path} of the state went from {tuple(one.shape)} to {tuple(two.shape)}"
    return ""


@check("A state that was saved and loaded resumes bit for bit.")
def state_can_be_saved(method: Method) -> None:
    """Write the state after two steps in the safetensors format, and resume from both."""
    for bench in benches(method):
        state = bench.adapted()
        loaded = unpacked(packed(state), state)
        again = bench.again()
        kept, resumed = bench.adapt(state, bench.episode(9)), again.adapt(loaded, again.episode(9))
        change = difference(kept, resumed)
        promise(not change, f"{change} after saving and loading the state {bench.where}")


@check("adapt puts none of the source model's own memory into the state.")
def source_memory_stays_out(method: Method) -> None:
    """Look for memory in the new state that the source model owns and the initial state did not hold."""
    for bench in benches(method):
        given = bench.init()
        owned = storages((dict(bench.source.params), dict(bench.source.buffers))) - storages(given)
        for path, tensor in tensors(bench.adapt(given, bench.episode()).state).items():
            promise(
                not storages(tensor) & owned,
                f"{path} of the new state is the source model's memory; clone it",
            )


@check("Neither the state nor the scores carry a gradient graph.")
def no_graph_is_left(method: Method) -> None:
    """Look at everything that adapt returns, with gradients on outside it."""
    for bench in benches(method):
        with torch.enable_grad():
            adapted = bench.adapt(bench.init(), bench.episode())
        for path, tensor in tensors(adapted).items():
            promise(
                not tensor.requires_grad,
                f"{path} of what adapt returned carries a gradient graph {bench.where}",
            )


@check("The method works in every floating type that its card names, and keeps it.")
def precision_is_kept(method: Method) -> None:
    """Take steps in float32, in float64 and with products in bfloat16, as far as the card names them."""
    for bench in benches(method, precisions=("float32", "float64", LOWER)):
        for scores in bench.steps(bench.init(), range(2))[1]:
            promise(scores.dtype == bench.source.dtype, f"scores are {scores.dtype} {bench.where}")
        before, after = tensors(bench.init()), tensors(bench.adapted())
        for path in before.keys() & after.keys():
            old, new = before[path].dtype, after[path].dtype
            promise(old == new, f"{path} of the state went from {old} to {new} {bench.where}")
