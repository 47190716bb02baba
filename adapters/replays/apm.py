# SPDX-License-Identifier: Apache-2.0
"""Replay of APM's golden vectors in float64: losses, predictions, scores, gradients, weights and loop defects.

A folder holds images, teacher features and initial weights ``w{i}/...``; a group ``lr.../`` or ``quirk_.../``
holds the course of the fits from them. All sizes, rates and counts are read from the manifest and the arrays.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tta_bench.errors import BadInputError
from tta_bench.method import Inputs, Task
from tta_bench.models.source import SourceModel
from tta_bench.parity.folder import below, entry, read_arrays, read_json
from tta_bench.parity.judge import Judge, not_replayed
from tta_bench.parity.models import zero_shot
from tta_bench.parity.result import CaseResult
from tta_bench.steps import step

from ..apm._dims import Dims, to_dims
from ..apm._fit import Engine
from ..apm.method import Apm
from ._apm_names import from_golden, to_golden

FAMILY = METHOD = "apm"
EXACT, ROUNDED, NOISE = 1e-12, 1e-6, 1e-7
"""Tolerances: float64 results; share of the largest entry for stored float32; what is 0 in theory."""
FLOAT32 = 1e-5
ENGINES: tuple[Engine, ...] = ("reference", "fast", "active")
QUIRKS = {
    "carry_adam": "carry_adam",
    "gradaccum_noscaler": "gradient_accumulation",
    "gradaccum_scaler65536": "scaled_accumulation",
    "all_official_fp32_scaler": "all",
}
"""Loop defects by the name of their golden group, less its step count, and as the method's hyper-parameter."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Golden:
    """A golden folder: its manifest, arrays in float64, image numbers and source model, and the engine on trial."""

    manifest: dict[str, Any]
    arrays: dict[str, Tensor]
    images: tuple[int, ...]
    source: SourceModel
    engine: Engine = "reference"

    def case(self, name: str) -> str:
        """Return the name of a case: that of the golden group, with the engine where it is not the reference."""
        return name if self.engine == "reference" else f"{name}[{self.engine}]"

    def inputs(self, images: Sequence[int], weights: Tensor) -> Inputs:
        """Return the step's inputs for some of the images, with the weights as the draws."""
        seen = torch.stack([self.arrays[f"img{i}"] for i in images])
        mean, std = (seen.new_tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
        features = torch.stack([entry(self.arrays, f"target{i}", "the arrays") for i in images])
        return Inputs(images=seen * std + mean, features=features, draws=weights)

    def weights(self, image: int) -> dict[str, Tensor]:
        """Return the golden initial weights of one image by their golden names."""
        return below(self.arrays, f"w{image}/")

    def method(self, group: str, **values: Any) -> Any:
        """Return APM with the hyper-parameters of the folder and the number of updates of a group."""
        adam, updates = (
            entry(self.manifest, "adam", "the manifest"),
            len(self.arrays[f"{group}/loss{self.images[0]}"]) - 1,
        )
        return Apm(
            iterations=updates, dims=_dims(self), betas=tuple(adam["betas"]), eps=adam["eps"],
            weight_decay=adam.get("weight_decay", 0.0), engine=self.engine, **values,
        )  # fmt: skip

    def task(self) -> Task:
        """Return what the method may know of the stream."""
        return Task(self.source.num_classes, self.source.class_names, batch_size=1)


def cases(folder: Path, method: str | None = None) -> Iterator[CaseResult]:
    """Replay the golden cases of a folder of family ``apm``.

    Args:
        folder: Holds ``manifest.json`` and one ``.npz`` file.
        method: Only this method; anything but ``"apm"`` gives nothing.
    """
    if method not in (None, METHOD):
        return
    golden = _read(folder)
    for engine in ENGINES:
        yield from _cases(replace(golden, engine=engine))


def _cases(golden: Golden) -> Iterator[CaseResult]:
    groups = sorted(
        {name.partition("/")[0] for name in golden.arrays if re.match(r"(lr|quirk_)[^/]*/loss", name)}
    )
    for group in groups:
        if group.startswith("lr"):
            yield from _primary(golden, group)
        else:
            yield _quirk(golden, group)
    if groups:
        yield from _gradients(golden, next((g for g in groups if g.startswith("lr")), groups[0]))


def _read(folder: Path) -> Golden:
    arrays = {}
    for path in sorted(folder.glob("*.npz")):
        arrays.update({name: array.double() for name, array in read_arrays(path).items()})
    manifest = read_json(folder / "manifest.json")
    images = sorted(int(name[3:]) for name in arrays if re.fullmatch(r"img\d+", name))
    if not images:
        raise BadInputError(f"{folder} holds no image array img0, img1, ...; the folder is incomplete")
    source = zero_shot(entry(arrays, "text", f"{folder}"))
    return Golden(manifest, arrays, tuple(images), source)


def _dims(golden: Golden) -> Dims:
    """Return image, patch, grid, code, widths and heads; the shapes of the weights go before the manifest."""
    dims, weights = entry(golden.manifest, "dims", "the manifest"), golden.weights(golden.images[0])
    height, width = golden.arrays[f"img{golden.images[0]}"].shape[-2:]
    patch = weights["conv1.weight"].shape[-1]
    code = weights["fc1.weight"].shape[1] - (height // patch) * (width // patch)
    widths = tuple(weights[f"{name}.weight"].shape[0] for name in ("fc1", "fc4", "fc5"))
    return to_dims([(height, width), patch, (dims["h"], dims["w"]), code, widths, dims["heads"]])


def _weights(golden: Golden, method: Any, images: Sequence[int]) -> Tensor:
    student = method.student(golden.source)
    return torch.cat([student.pack(from_golden(golden.weights(i), student.shapes)) for i in images])


def _primary(golden: Golden, group: str) -> Iterator[CaseResult]:
    """Fit all images at once, as a run does, and compare each with its own golden course."""
    method = golden.method(group, lr=float(group[2:]))
    inputs = golden.inputs(golden.images, _weights(golden, method, golden.images))
    state = method.init(golden.source, golden.task())
    course = method.fit(golden.source, state, inputs, method.iterations)
    stepped = step(method, golden.source, state, inputs, way="native")
    final = to_golden(method.student(golden.source).unpack(course.weights))
    for row, image in enumerate(golden.images):
        judge = Judge(FAMILY, METHOD, golden.case(f"{group}/image{image}"), EXACT)
        _judge_course(golden, judge, group, image, course, row, EXACT)
        judge.compare("scores", stepped.scores[row], golden.arrays[f"{group}/cos{image}"][-2])
        if stepped.teacher is not None:
            judge.compare(
                "teacher", stepped.teacher[row], golden.source.head(golden.arrays[f"target{image}"][None])[0]
            )
        yield judge.verdict()
        stored = below(golden.arrays, f"{group}/final{image}/")
        if stored:
            judge = Judge(FAMILY, METHOD, golden.case(f"{group}/final{image}"), ROUNDED)
            _judge_tensors(judge, {name: final[name][row] for name in stored}, stored)
            yield judge.verdict()


def _judge_course(
    golden: Golden, judge: Judge, group: str, image: int, course: Any, row: int, tolerance: float
) -> None:
    predictions, arrays = course.predictions[:, row], golden.arrays
    judge.compare("losses", course.losses[:, row], arrays[f"{group}/loss{image}"], tolerance)
    judge.compare("predictions", predictions, arrays[f"{group}/pred{image}"], tolerance)
    if f"{group}/cos{image}" in arrays:
        judge.compare("cosines", golden.source.head(predictions), arrays[f"{group}/cos{image}"], tolerance)


def _judge_tensors(judge: Judge, got: Mapping[str, Tensor], golden: Mapping[str, Tensor]) -> None:
    """Compare tensors to a share of their largest entry; the bias of the keys has no effect and is 0."""
    for name, values in golden.items():
        largest = float(values.abs().max())
        limit = torch.full_like(values, max(ROUNDED * largest, math.ulp(0.0)))
        if name.endswith("in_proj_bias"):
            third = len(values) // 3
            limit[third : 2 * third] = NOISE
        judge.compare(name, got[name], values, limit)


def _gradients(golden: Golden, group: str) -> Iterator[CaseResult]:
    """Compare the first gradient, which is Adam's first moment after one update over ``1 - beta1``."""
    images = [i for i in golden.images if below(golden.arrays, f"grad0_{i}/")]
    if not images:
        return
    method = golden.method(group)
    inputs = golden.inputs(images, _weights(golden, method, images))
    moment = method.fit(golden.source, {}, inputs, 1).moments.first / (1 - method.betas[0])
    found = to_golden(method.student(golden.source).unpack(moment))
    for row, image in enumerate(images):
        judge = Judge(FAMILY, METHOD, golden.case(f"grad0/image{image}"), ROUNDED)
        stored = below(golden.arrays, f"grad0_{image}/")
        _judge_tensors(judge, {name: found[name][row] for name in stored}, stored)
        yield judge.verdict()


def _quirk(golden: Golden, group: str) -> CaseResult:
    """Replay a defect of the published loop, image after image, with what it carries over in the state."""
    name = group.removeprefix("quirk_")
    every = re.search(r"_step(\d+)$", name)
    quirk = QUIRKS.get(name.removesuffix(every[0]) if every else name)
    if quirk is None:
        return not_replayed(FAMILY, METHOD, golden.case(group), "a loop defect that the method does not know")
    tolerance = FLOAT32 if "scaler" in name and "noscaler" not in name else EXACT
    lr_every = int(every[1]) if every else 0
    method = golden.method(group, lr=_quirk_lr(golden.manifest), reference_quirk=quirk, lr_every=lr_every)
    judge, state = (
        Judge(FAMILY, METHOD, golden.case(group), tolerance),
        method.init(golden.source, golden.task()),
    )
    for image in golden.images:
        inputs = golden.inputs([image], _weights(golden, method, [image]))
        course = method.fit(golden.source, state, inputs, method.iterations)
        _judge_course(golden, judge, group, image, course, 0, tolerance)
        stepped = step(method, golden.source, state, inputs)
        read = golden.arrays[f"{group}/pred{image}"][-2]
        judge.compare("scores", stepped.scores[0], golden.source.head(read[None])[0], tolerance)
        state = stepped.state
    return judge.verdict()


def _quirk_lr(manifest: Mapping[str, Any]) -> float:
    """Return the learning rate of the defects, which the manifest gives in words; else the largest of all."""
    match = re.search(r"\blr ([0-9.]+(?:e-?\d+)?)", manifest.get("format", {}).get("quirk_lr", ""))
    return float(match[1]) if match else max(map(float, manifest["adam"]["lrs"]))
