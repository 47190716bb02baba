# SPDX-License-Identifier: Apache-2.0
"""One step of a method under a reset rule: over the whole batch, natively per image, by ``vmap`` or in a loop.

The runner and the conformance checks call the same functions, so what is checked is what is measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tta_bench.errors import IncompatibleError, PluginError
from tta_bench.method import Adapted, Inputs, Method, ScoringMethod, State
from tta_bench.models.layers import plain_attention
from tta_bench.models.source import SourceModel
from tta_bench.optim import functional

Way = Literal["batch", "native", "vmap", "loop"]
Phase = Callable[[str], AbstractContextManager[Any]]


class Stepped(NamedTuple):
    """The result of a step: carried state, scores (N, K), teacher's scores, and whether the step itself predicted."""

    state: State
    scores: Tensor
    teacher: Tensor | None
    fused: bool


def way_of(method: Method, *, per_image: bool) -> Way:
    """Return how a method's step runs: the whole batch, or per image in the fastest way its card promises."""
    if not per_image:
        return "batch"
    return "native" if method.card.independent else "vmap" if method.card.vmappable else "loop"


def step(
    method: Method,
    source: SourceModel,
    state: State,
    inputs: Inputs,
    *,
    way: Way = "batch",
    phase: Phase = nullcontext,
) -> Stepped:
    """Adapt to a batch and predict it.

    Args:
        method: The method.
        source: Its source model.
        state: The carried state; for ``native``, ``vmap`` and ``loop`` the initial one, which every image
            starts from and which is handed back unchanged.
        inputs: One batch.
        way: How to run it, see `way_of`.
        phase: Called with "adapt" and "predict"; its context is the clock of that phase.
    """
    if way == "vmap" and size(inputs) > 1:  # one image alone costs less by ordinary autograd
        return _vmapped(method, source, state, inputs, phase)
    if way in ("loop", "vmap"):
        return _looped(method, source, state, inputs, phase)
    with phase("adapt"):
        adapted = checked(method, method.adapt(source, state, inputs))
    scores = adapted.logits
    if scores is None:
        with phase("predict"), torch.no_grad():
            scores = method.predict(source, adapted.state, inputs)
    teacher = adapted.teacher
    return Stepped(
        adapted.state if way == "batch" else state,
        shaped(method, source, scores, inputs).detach(),
        None if teacher is None else shaped(method, source, teacher, inputs, "teacher scores").detach(),
        adapted.logits is not None,
    )


def step_variants(
    methods: Sequence[ScoringMethod], source: SourceModel, state: State, inputs: Inputs, *, way: Way = "batch"
) -> tuple[State, list[Tensor]]:
    """Adapt to a batch once, and predict it by every one of several methods that share the pass.

    Args:
        methods: They differ in nothing but scoring hyper-parameters, see `share_a_pass`.
        source: Their source model.
        state: The carried state, or the initial one where each image is an episode.
        inputs: One batch.
        way: How a step runs, see `way_of`; ``vmap`` gives way to a loop.

    Returns:
        The state after the step, and the scores (N, K) of each method.

    Raises:
        PluginError: If the methods do not share a pass.
    """
    first = methods[0]
    if not all(share_a_pass(first, other) for other in methods):
        raise PluginError(
            f"variants of {type(first).__name__} that share a pass may differ only in "
            f"{', '.join(sorted(first.scoring))}; run the others separately"
        )
    count = size(inputs)
    parts = [inputs] if way in ("batch", "native") else [slice_inputs(inputs, i, i + 1) for i in range(count)]
    scores: list[list[Tensor]] = [[] for _ in methods]
    after = state
    with torch.no_grad():
        for part in parts:
            after, evidence = first.observe(source, state, part)
            for method, found in zip(methods, scores, strict=True):
                found.append(shaped(method, source, method.score(source, evidence), part).detach())
    return after if way == "batch" else state, [torch.cat(found) for found in scores]


def share_a_pass(first: Method, second: Method) -> bool:
    """Return whether two methods differ at most in hyper-parameters that enter only their scores."""
    if not isinstance(first, ScoringMethod) or type(first) is not type(second):
        return False
    names = {field.name for field in dataclasses.fields(first)} - first.scoring  # type: ignore[arg-type]
    return all(getattr(first, name) == getattr(second, name) for name in names)


def _looped(method: Method, source: SourceModel, state: State, inputs: Inputs, phase: Phase) -> Stepped:
    parts = [
        step(method, source, state, slice_inputs(inputs, i, i + 1), phase=phase) for i in range(size(inputs))
    ]
    return joined(parts)._replace(state=state)


def joined(parts: Sequence[Stepped]) -> Stepped:
    """Return what steps over parts of a batch gave as one, with the state of the last."""
    if len(parts) == 1:
        return parts[0]
    teachers = [part.teacher for part in parts if part.teacher is not None]
    teacher = torch.cat(teachers) if len(teachers) == len(parts) else None
    scores = torch.cat([part.scores for part in parts])
    return Stepped(parts[-1].state, scores, teacher, all(part.fused for part in parts))


def _vmapped(method: Method, source: SourceModel, state: State, inputs: Inputs, phase: Phase) -> Stepped:
    """Run one episode per image at once; absent outputs become empty tensors, as ``vmap`` wants tensors."""
    each = _over_images(inputs, lambda x: x.unsqueeze(1))
    fused = False

    def adapt(one: dict[str, Any]) -> tuple[State, Tensor, Tensor]:
        nonlocal fused
        alone = inputs._replace(**one)
        adapted = checked(method, method.adapt(source, state, alone))
        fused = adapted.logits is not None
        nothing = one_tensor(alone).new_zeros(0)
        return (
            adapted.state,
            nothing if adapted.logits is None else adapted.logits,
            nothing if adapted.teacher is None else adapted.teacher,
        )

    def predict(adapted: State, one: dict[str, Any]) -> Tensor:
        return method.predict(source, adapted, inputs._replace(**one))

    with functional(), plain_attention():
        with phase("adapt"):
            states, logits, teacher = torch.func.vmap(adapt)(each)
        if not fused:
            with phase("predict"), torch.no_grad():
                logits = torch.func.vmap(predict)(states, each)
    scores = shaped(method, source, logits.squeeze(1), inputs)
    taught = None
    if teacher.numel():
        taught = shaped(method, source, teacher.squeeze(1), inputs, "teacher scores").detach()
    return Stepped(state, scores.detach(), taught, fused)


def size(inputs: Inputs) -> int:
    """Return N."""
    return int(one_tensor(inputs).shape[0])


def one_tensor(inputs: Inputs) -> Tensor:
    """Return the images, or the features where there are no images."""
    found = inputs.images if inputs.images is not None else inputs.features
    assert found is not None
    return found


def slice_inputs(inputs: Inputs, start: int, stop: int) -> Inputs:
    """Return the images from ``start`` to ``stop`` with all that belongs to them; replay batches stay whole."""
    return inputs._replace(**_over_images(inputs, lambda x: x[start:stop]))


def _over_images(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Return the changed fields that are there and have one row per image."""
    per_image = {name: value for name, value in inputs._asdict().items() if not name.startswith("source_")}
    present = {name: value for name, value in per_image.items() if value is not None}
    changed: dict[str, Any] = pytree.tree_map(change, present)
    return changed


def check_compatible(method: Method, source: SourceModel) -> None:
    """Refuse a source model without the parts that the method's card needs.

    Raises:
        IncompatibleError: With the missing part and a model that has it.
    """
    parts = {
        "batchnorm": (
            not any(layer.kind == "batch" for layer in source.layers),
            "BatchNorm layers",
            "one that has them, e.g. pocket-bn or timm/resnet50.a1_in1k",
        ),
        "text": (source.text is None, "a text side", "a CLIP-like model, e.g. pocket-clip"),
        "reward": (source.reward is None, "a reward model", "a CLIP-like model that has one"),
        "attention": (
            not source.attention_weights(),
            "attention blocks",
            "a vision transformer, e.g. pocket-vit-clip or open_clip/ViT-B-16:TAG",
        ),
        "class_token": (
            "class_token" in method.card.needs and source.transformer is None,
            "a class token that takes part in its attention",
            "a vision transformer, e.g. timm/vit_small_patch16_224.augreg_in1k",
        ),
        "patch_features": (
            "patch_features" in method.card.needs and not _gives_tokens(source),
            "patch features",
            "a vision transformer, e.g. timm/vit_small_patch16_224.augreg_in1k",
        ),
    }
    for need, (is_missing, part, choose) in parts.items():
        if need in method.card.needs and is_missing:
            raise IncompatibleError(
                f"{type(method).__name__} needs {part}, and {source.name!r} has none; choose {choose}"
            )


def _gives_tokens(source: SourceModel) -> bool:
    image = torch.zeros(1, *source.image_shape, dtype=source.dtype, device=source.device)
    with torch.no_grad():
        return source.forward(image).tokens is not None or source.patches(image) is not None


def checked(method: Method, adapted: Any) -> Adapted:
    """Return what `Method.adapt` gave if it is an `Adapted`."""
    if not isinstance(adapted, Adapted):
        raise PluginError(
            f"{type(method).__name__}.adapt must return tta_bench.method.Adapted(state, logits), "
            f"got {type(adapted).__name__}"
        )
    return adapted


def shaped(method: Method, source: SourceModel, scores: Any, inputs: Inputs, kind: str = "scores") -> Tensor:
    """Return scores if they are (N, K).

    Raises:
        PluginError: If they are not.
    """
    expected = (size(inputs), source.num_classes)
    if not isinstance(scores, Tensor) or tuple(scores.shape) != expected:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise PluginError(f"{type(method).__name__} must give {kind} of shape {expected}, got {got}")
    return scores
