# SPDX-License-Identifier: Apache-2.0
"""Replay of the online methods' golden vectors: scores, scores after a reset, and final parameters.

Float32 on one CPU thread. A score passes within ``1e-5 + 1e-5 * |golden|`` or five times the measured noise of
the reference's own backend (``backend_noise.json``, where there is one); a parameter within the first term; a
sum over all parameters within 1e-4. The entry point
``online/NAME`` of the group ``tta_bench.replays`` says which method replays the cases of a golden method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
TIGHT, SUMS, NOISE_SHARE = 1e-5, 1e-4, 5.0
FISHER = "fisher__"
"""Start of the names of recorded importances, which are results and no inputs."""
BROKEN = "BROKEN"
"""Mark in the name of a case that documents a failure of the reference."""


def cases(folder: Path, method: str | None = None) -> Iterator[CaseResult]:
    """Replay the golden cases of a folder of family ``online``.

    Args:
        folder: Holds ``manifest.json``, ``weights.npz``, ``inputs.npz`` and ``<method>.npz`` files.
        method: Only this golden method, or those whose names start with it and an underscore.
    """
    manifest = read_json(folder / "manifest.json")
    methods = entry(manifest, "methods", "the manifest")
    chosen = [name for name in methods if method in (None, name, name.partition("_")[0])]
    if not chosen:
        return
    weights, inputs = read_arrays(folder / "weights.npz"), read_arrays(folder / "inputs.npz")
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
    kwargs = manifest.get("vit", {}).get("kwargs", {})
    source = classifier(model, below(weights, f"{model}/"), tuple(x.shape[-3:]), kwargs)
    count, size = entry(arrays, "logits", f"case {method}/{name}").shape[:2]
    split = None
    if "source_x" in inputs:
        split = GoldenSplit(inputs["source_x"], entry(inputs, "source_y", "inputs.npz"))
    stream = tuple(x.flatten(0, 1).split(size)[:count])
    recorded = Entries(arrays, f"case {method}/{name}")
    return Case(method, name, info, manifest, recorded, source, stream, split)


def _replay(case: Case, noise: float) -> CaseResult:
    plan = (
        f"named {BROKEN}: a failure of the reference"
        if BROKEN in case.name
        else load_plan(FAMILY, case.method)(case)
    )
    if isinstance(plan, str):
        return not_replayed(FAMILY, case.method, case.name, plan)
    task = Task(
        case.source.num_classes, case.source.class_names, batch_size=len(case.stream[0]),
        stream_length=sum(map(len, case.stream)), source=case.split,
    )  # fmt: skip
    start = plan.start(case, plan.method.init(case.source, task))
    judge = Judge(FAMILY, case.method, case.name, plan.tolerance or TIGHT)
    scores, state = _run(case, plan, start, len(case.stream))
    golden = case.arrays["logits"]
    judge.compare("logits", scores, golden, _limit(plan, golden, noise), _tight(golden))
    again = case.arrays.get("logits_after_reset")
    if again is not None:
        # Where the reference leaks through its reset, a reset that works gives the first pass again.
        exact = case.info.get("reset_exact_in_reference", True) or not plan.rewinds
        target = again if exact else golden[: len(again)]
        repeated, _ = _run(case, plan, start, len(again), first=0 if plan.rewinds else len(case.stream))
        judge.compare("logits after reset", repeated, target, _limit(plan, target, noise), _tight(target))
    _judge_parameters(case, plan, judge, plan.tensors(state))
    return judge.verdict()


def _run(case: Case, plan: Plan, start: State, count: int, first: int = 0) -> tuple[Tensor, State]:
    """Return the scores (count, B, K) of the first batches and the state after them; ``first`` counts earlier ones."""
    state, scores = start, []
    for index, images in enumerate(case.stream[:count]):
        state = start if plan.reset_each_batch else state
        inputs = plan.inputs(case, first + index, images)
        stepped = step(
            plan.method, case.source, state, inputs, way=way_of(plan.method, per_image=plan.per_image)
        )
        state = stepped.state
        scores.append(stepped.scores)
    if plan.per_image:
        last = len(case.stream[0]) - 1
        state = step(plan.method, case.source, start, slice_inputs(inputs, last, last + 1)).state
    return torch.stack(scores), state


def _limit(plan: Plan, golden: Tensor, noise: float) -> Tensor:
    if plan.tolerance is not None:
        return torch.full_like(golden, plan.tolerance, dtype=torch.float64)
    return _tight(golden).clamp(min=NOISE_SHARE * noise)


def _tight(golden: Tensor) -> Tensor:
    return TIGHT + TIGHT * golden.double().abs()


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
            judge.compare(name, entry(tensors, name, f"the state after {case.name}"), golden, _tight(golden))
    for name, golden in below(case.arrays, FISHER).items():
        judge.compare(FISHER + name, entry(changed, FISHER + name, "the state"), golden, _tight(golden))
