# SPDX-License-Identifier: Apache-2.0
"""Replay of the CLIP methods' golden vectors in float64, by plans that are found through entry points.

A value passes within ``atol + rtol * |golden|`` with the numbers that the manifest gives for the method; whole
numbers must be equal. Elements that rounding decides have a wider rule. `tta_bench.parity.vlm_case` says how plans are
written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError
from tta_bench.parity.folder import Entries, below, entry, read_arrays, read_json
from tta_bench.parity.judge import Judge, not_replayed
from tta_bench.parity.plans import load_plan, registered_plan
from tta_bench.parity.result import CaseResult
from tta_bench.parity.vlm_case import Plan, Shared, Undetermined, VlmCase
from tta_bench.parity.vlm_inputs import FAMILY

MODEL = "tiny_clip"
"""The entry of the manifest that stands for the model itself: its features are compared before all else."""
INPUTS = ("features", MODEL)
WHOLE = 0.5
"""Below 1: whole numbers must be equal."""
SPREADS = 4.0
"""An element that rounding decides may be so many times further away than changes as small as rounding moved it."""
SUFFIX = "_atol"
TENSORS = ("params", "params0", "A", "B")
"""Groups of arrays that are adapted tensors, whose tolerance is ``param_atol``."""


def cases(folder: Path, method: str | None = None) -> Iterator[CaseResult]:
    """Replay the golden cases of a folder of family ``vlm``.

    Args:
        folder: Holds ``manifest.json`` and ``<method>.npz`` files; ``features.npz`` and ``tiny_clip.npz`` may lie
            in the sibling folder ``vlm``.
        method: Only this golden method, or those whose names start with it and an underscore.
    """
    methods = entry(read_json(folder / "manifest.json"), "methods", "the manifest")
    shared = Shared(folder)
    for name, info in methods.items():
        if method not in (None, name, name.partition("_")[0]):
            continue
        if name == MODEL:
            yield _model(shared, info)
        elif name not in INPUTS:
            yield from _method(folder, name, info, shared)


def _method(folder: Path, name: str, info: Mapping[str, Any], shared: Shared) -> Iterator[CaseResult]:
    plan: Plan | None = load_plan(FAMILY, name) if registered_plan(FAMILY, name) else None
    arrays = read_arrays(folder / f"{name}.npz")
    for variant in _variants(info, arrays):
        if plan is None:
            yield not_replayed(FAMILY, name, variant or name, "no method of ours yet")
            continue
        own = below(arrays, f"{variant}/") if variant else {}
        others = tuple(f"{other}/" for other in _variants(info, arrays) if other)
        common = {key: array for key, array in arrays.items() if not key.startswith(others)}
        values = {**info.get("hyperparameters", {}), **info.get("cases", {}).get(variant, {})}
        where = f"the hyper-parameters of case {name}/{variant}"
        case = VlmCase(name, variant or name, Entries(values, where), info, shared, {**common, **own})
        yield _judged(case, plan)


def _variants(info: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> list[str]:
    """Return the variants of a method; one without a name where its arrays have no prefix."""
    if "cases" in info:
        return list(info["cases"])
    if any(name.startswith("*/") for name in info.get("arrays", {})):
        return list(dict.fromkeys(name.partition("/")[0] for name in arrays if "/" in name))
    return [""]


def _judged(case: VlmCase, plan: Plan) -> CaseResult:
    got = plan(case)
    if isinstance(got, str):
        return not_replayed(FAMILY, case.method, case.name, got)
    arrays, spread = got if isinstance(got, Undetermined) else (got, None)
    _check_names(case, arrays)
    limits, rules = {}, {}
    for name in arrays:
        golden, (atol, rtol) = case.arrays[name], _tolerance(case, name)
        rules[name] = atol + rtol * golden.double().abs() if golden.is_floating_point() else _whole(golden)
        limits[name] = rules[name] if spread is None else torch.maximum(rules[name], SPREADS * spread[name])
    rule = min(_tolerance(case, name)[0] for name in arrays)
    shown = rule if spread is None else max(float(one.max()) for one in limits.values())
    judge = Judge(FAMILY, case.method, case.name, shown, rule)
    for name, ours in arrays.items():
        judge.compare(name, ours, case.arrays[name], limits[name], rules[name])
    return judge.verdict()


def _whole(golden: Tensor) -> Tensor:
    return torch.full_like(golden, WHOLE, dtype=torch.float64)


def _check_names(case: VlmCase, arrays: Mapping[str, Tensor]) -> None:
    """Refuse a plan that leaves out a golden array, or gives one that is not golden."""
    missing = sorted(case.arrays.keys() - arrays.keys() - case.taken)
    unknown = sorted(arrays.keys() - case.arrays.keys())
    for names, fault in (
        (missing, "neither gives nor takes the golden array"),
        (unknown, "gives an unknown array"),
    ):
        if names:
            raise BadInputError(
                f"the replay of {case.method}/{case.name} {fault} {names[0]!r}; correct the plan"
            )


def _tolerance(case: VlmCase, name: str) -> tuple[float, float]:
    """Return the absolute and the relative tolerance of one array: its own, that of all, or the tightest."""
    given = entry(case.info, "tolerance", f"the manifest's entry of {case.method}")
    given = given.get(case.name, given)
    key = "param" if name.partition("/")[0] in TENSORS else name
    own = [value for stem, value in _stems(given) if key.startswith(stem)]
    tightest = min(value for value in given.values() if not isinstance(value, dict))
    return own[0] if own else given.get("atol", tightest), given.get("rtol", 0.0)


def _stems(given: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the starts of array names that have a tolerance of their own, the longest first."""
    named = [(key.removesuffix(SUFFIX), value) for key, value in given.items() if key.endswith(SUFFIX)]
    return sorted(named, key=lambda pair: -len(pair[0]))


def _model(shared: Shared, info: Mapping[str, Any]) -> CaseResult:
    """Compare the features and logits of the tiny model with the recorded ones."""
    clip = shared.clip
    judge = Judge(
        FAMILY, MODEL, "forward", float(entry(info, "tolerance", "the manifest's entry of it")["atol"])
    )
    assert clip.source.text is not None
    with torch.no_grad():
        views = torch.unflatten(clip.source.encode(clip.views.flatten(0, 1)), 0, clip.views.shape[:2])
        ours = {
            "text_features": clip.source.text.prototypes(),
            "view_features": F.normalize(views, dim=-1),
            "batch_features": F.normalize(clip.source.encode(clip.batch), dim=-1),
            "logits_view0": clip.source.head(views[:, 0]),
        }
    for name, found in ours.items():
        judge.compare(name, found, entry(clip.arrays, name, f"{MODEL}.npz"))
    return judge.verdict()
