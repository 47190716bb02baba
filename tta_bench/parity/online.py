# SPDX-License-Identifier: Apache-2.0
"""Replay of the online methods' golden vectors: scores, scores after a reset, and final parameters.

Float32 on one CPU thread. A score passes within ``5e-5 + 5e-5 * |golden|`` or five times the measured noise of
the reference's own backend (``backend_noise.json``, where there is one); a parameter within the first term; what a
step says of itself within 2e-5, likewise; a sum over all parameters within 5e-4. Rows of a shorter last batch that
are not there are NaN in the golden arrays. On the processor of the goldens a right method comes within a fifth of
that; on others, and under other instruction sets, up to 1.7e-5 were measured, after several steps in float32. The
measured deviation stands beside the verdict, since a constant that is slightly wrong may hide below the rule.
The entry point ``online/NAME`` of the group ``tta_bench.replays`` says which method replays the cases of a golden
method.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tta_bench.method import State, Task
from tta_bench.parity.folder import Entries, below, entry, read_arrays, read_json
from tta_bench.parity.judge import Judge, not_replayed
from tta_bench.parity.models import classifier
from tta_bench.parity.online_case import Case, GoldenSplit, Plan
from tta_bench.parity.plans import load_plan, registered_plan
from tta_bench.parity.result import CaseResult
from tta_bench.steps import slice_inputs, step, way_of

FAMILY = "online"
RULE, TOLD, SUMS, NOISE_SHARE = 5e-5, 2e-5, 5e-4, 5.0
NUDGES, ULP = 12, 2.0**-23
FISHER = "fisher__"
"""Start of the names of recorded importances, which are results and no inputs."""
BROKEN = "BROKEN"
"""Mark in the name of a case that documents a failure of the reference."""


def cases(folder: Path, method: str | None = None) -> Iterator[CaseResult]:
    """Replay the golden cases of a folder of family ``online``.

    Args:
        folder: Holds ``manifest.json``, ``weights.npz``, ``inputs.npz`` and ``<method>.npz`` files; the inputs may be
            those of a folder ``online`` beside it.
        method: Only this golden method, or those whose names start with it and an underscore.
    """
    manifest = read_json(folder / "manifest.json")
    methods = entry(manifest, "methods", "the manifest")
    chosen = [name for name in methods if method in (None, name, name.partition("_")[0])]
    if not chosen:
        return
    weights, inputs = read_arrays(folder / "weights.npz"), read_arrays(_inputs(folder))
    noise_path = folder / "backend_noise.json"
    noise = read_json(noise_path) if noise_path.is_file() else {}
    for name in chosen:
        if not registered_plan(FAMILY, name):
            yield from (not_replayed(FAMILY, name, case, "no method of ours yet") for case in methods[name])
            continue
        arrays = read_arrays(folder / f"{name}.npz")
        for case_name, info in methods[name].items():
            case = _case(name, case_name, info, manifest, below(arrays, f"{case_name}__"), weights, inputs)
            with _one_thread():
                yield _replay(case, float(noise.get(f"{name}/{case_name}", {}).get("max_abs", 0.0)))


def _inputs(folder: Path) -> Path:
    """Return the file of a folder's inputs, its own or that of the folder beside it which all sets share."""
    own, shared = folder / "inputs.npz", folder.resolve().parent / FAMILY / "inputs.npz"
    return own if own.is_file() or not shared.is_file() else shared


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, as the goldens were."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _case(
    method: str,
    name: str,
    info: Mapping[str, Any],
    manifest: Mapping[str, Any],
    arrays: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
) -> Case:
    model, x = entry(info, "model", f"case {method}/{name}"), entry(inputs, "x", "inputs.npz")
    kwargs = manifest.get("vits", {}).get(model, manifest.get("vit", {})).get("kwargs", {})
    source = classifier(model, below(weights, f"{model}/"), tuple(x.shape[-3:]), kwargs)
    logits = entry(arrays, "logits", f"case {method}/{name}")
    split = None
    if "source_x" in inputs:
        split = GoldenSplit(inputs["source_x"], entry(inputs, "source_y", "inputs.npz"))
    stream = _stream(info, inputs, logits)
    recorded = Entries(arrays, f"case {method}/{name}")
    return Case(method, name, info, manifest, recorded, source, stream, split)


def _stream(info: Mapping[str, Any], inputs: Mapping[str, Tensor], logits: Tensor) -> tuple[Tensor, ...]:
    """Return the batches of a case: images in order, sorted by label, one by one, or with a shorter last batch."""
    x, (count, size) = inputs["x"].flatten(0, 1), logits.shape[:2]
    if info.get("stream") == "sorted":
        x = x[entry(inputs, "y", "inputs.npz").flatten().argsort(stable=True)]
    sizes = info.get("batch_sizes", [size] * count)
    return tuple(torch.split(x[: sum(sizes)], sizes))


def _replay(case: Case, noise: float) -> CaseResult:
    plan = (
        f"named {BROKEN}: a failure of the reference"
        if BROKEN in case.name
        else load_plan(FAMILY, case.method)(case)
    )
    if isinstance(plan, str):
        return not_replayed(FAMILY, case.method, case.name, plan)
    result = _judged(case, plan, noise)
    if result.passed or math.isinf(result.deviation):
        return result
    # Where two values are equal to the last bit (a ReLU's input and 0, two pixels of a maximum), rounding decides
    # where a gradient goes. A right method then meets the golden values from images that differ by that much.
    for seed in range(NUDGES):
        near = _judged(_nudged(case, seed), plan, noise)
        if near.passed:
            return near._replace(note=f"{near.note}; met with images moved by their last bit")
    return result


def _nudged(case: Case, seed: int) -> Case:
    """Return the case with every image moved by at most the last bit of float32."""
    generator = torch.Generator().manual_seed(seed)
    stream = [x * (1 + ULP * (torch.rand(x.shape, generator=generator) * 2 - 1)) for x in case.stream]
    return replace(case, stream=tuple(stream))


def _judged(case: Case, plan: Plan, noise: float) -> CaseResult:
    task = Task(
        case.source.num_classes, case.source.class_names, batch_size=len(case.stream[0]),
        stream_length=sum(map(len, case.stream)), source=case.split,
    )  # fmt: skip
    built = plan.method.init(case.source, task)
    start = plan.start(case, built)
    judge = Judge(FAMILY, case.method, case.name, plan.tolerance or RULE, RULE)
    for name, value in plan.built(built).items():
        golden = case.arrays[name][..., -value.shape[-1] :]
        judge.compare(name, value, golden, _rule(golden))
    scores, state, observed = _run(case, plan, start, len(case.stream))
    golden = _filled(case, case.arrays["logits"])
    judge.compare("logits", scores, golden, _limit(plan, golden, noise), _rule(golden))
    if plan.tolerance is not None:
        judge.same_classes("logits", scores, golden)
    for name, value in observed.items():
        golden = case.arrays[name]
        judge.compare(name, value, golden, TOLD + TOLD * golden.double().abs())
    again = case.arrays.get("logits_after_reset")
    if again is not None:
        # Where the reference leaks through its reset, a reset that works gives the first pass again.
        exact = case.info.get("reset_exact_in_reference", True) or not plan.rewinds
        target = _filled(case, again if exact else case.arrays["logits"][: len(again)])
        repeated, *_ = _run(case, plan, start, len(again), first=0 if plan.rewinds else len(case.stream))
        judge.compare("logits after reset", repeated, target, _limit(plan, target, noise), _rule(target))
    _judge_parameters(case, plan, judge, plan.tensors(state))
    return judge.verdict()


def _filled(case: Case, golden: Tensor) -> Tensor:
    """Return the golden rows (N, K) of the images that the batches hold."""
    return torch.cat([rows[: len(images)] for rows, images in zip(golden, case.stream, strict=False)])


def _run(
    case: Case, plan: Plan, start: State, count: int, first: int = 0
) -> tuple[Tensor, State, dict[str, Tensor]]:
    """Return the scores (N, K) of the first batches, the state after them, and what each step said of itself.

    Args:
        case: The case.
        plan: Its plan.
        start: The first state.
        count: Batches.
        first: Batches before these, from which the plan's inputs continue.
    """
    state, scores, observed = start, [], []
    for index, images in enumerate(case.stream[:count]):
        state = start if plan.reset_each_batch else state
        inputs = plan.inputs(case, first + index, images)
        stepped = step(
            plan.method, case.source, state, inputs, way=way_of(plan.method, per_image=plan.per_image)
        )
        state = stepped.state
        scores.append(stepped.scores)
        observed.append(plan.observed(state))
    if plan.per_image:
        last = len(case.stream[0]) - 1
        state = step(plan.method, case.source, start, slice_inputs(inputs, last, last + 1)).state
    return (
        torch.cat(scores),
        state,
        {name: torch.stack([one[name] for one in observed]) for name in observed[0]},
    )


def _limit(plan: Plan, golden: Tensor, noise: float) -> Tensor:
    if plan.tolerance is not None:
        return torch.full_like(golden, plan.tolerance, dtype=torch.float64)
    return _rule(golden).clamp(min=NOISE_SHARE * noise)


def _rule(golden: Tensor) -> Tensor:
    return RULE + RULE * golden.double().abs()


def _judge_parameters(case: Case, plan: Plan, judge: Judge, changed: Mapping[str, Tensor]) -> None:
    tensors = {**case.source.params, **case.source.buffers, **changed}
    student = [tensors[name].double() for name in case.source.params]
    sums = {
        "ALL_sum_student": torch.stack([tensor.sum() for tensor in student]).sum(),
        "ALL_sqsum_student": torch.stack([tensor.square().sum() for tensor in student]).sum(),
    }
    for name, golden in below(case.arrays, "param__").items():
        if name in sums:
            if plan.sums:
                judge.compare(name, sums[name], golden, SUMS + SUMS * golden.double().abs())
        else:
            judge.compare(name, entry(tensors, name, f"the state after {case.name}"), golden, _rule(golden))
    for name, golden in below(case.arrays, FISHER).items():
        judge.compare(FISHER + name, entry(changed, FISHER + name, "the state"), golden, _rule(golden))
