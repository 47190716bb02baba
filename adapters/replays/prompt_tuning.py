# SPDX-License-Identifier: Apache-2.0
"""Replays of the methods that tune a prompt, or the class features, for each image by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tta_bench.method import Inputs, SourceModel, State, Task
from tta_bench.parity.vlm_case import Undetermined, VlmCase, course, method

NUDGES, NUDGE = 2, 1e-12
"""Number and size of the changes to source statistics that show what rounding decides."""


def shared(case: VlmCase, selection: str = "selection_p") -> dict[str, Any]:
    """Return the hyper-parameters that all of these methods share."""
    values = case.values
    return {
        "lr": values["lr"], "weight_decay": values["weight_decay"], "steps": values["tta_steps"],
        "selection": values[selection],
    }  # fmt: skip


def tuned(
    case: VlmCase, made: Any, source: SourceModel | None = None, name: str = "ctx"
) -> dict[str, Tensor]:
    """Return what a method gave, by the names that most goldens use, with the tuned tensor under one of its own."""
    source = source or case.clip.source
    inputs = list(case.clip.episodes(source=source))
    ran = course(made, source, inputs, episodic=True)
    start = made.init(source, Task(source.num_classes, source.class_names, 1))
    steps = [made.tune(source, start, one) for one in inputs]
    return {
        "logits": ran.scores,
        name: ran.stacked("params", name),
        "grad": torch.stack([one.grads[name] for one in steps]),
        "losses": torch.stack([one.losses for one in steps]),
        "selected": torch.cat([one.chosen for one in steps]),
    }


def with_views(case: VlmCase, made: Any, source: SourceModel | None = None) -> dict[str, Tensor]:
    """Return what a prompt tuner gave, with the initial context and the tuned logits of all views."""
    source = source or case.clip.source
    found = tuned(case, made, source)
    views = [one.view_features for one in case.clip.episodes(source=source)]
    logits = [every_view(made, source, {"ctx": ctx}, x) for ctx, x in zip(found["ctx"], views, strict=True)]
    return {**found, "logits_all_views": torch.cat(logits), "ctx_init": made.tensors(source)["ctx"]}


@torch.no_grad()
def every_view(made: Any, source: SourceModel, params: State, features: Tensor | None) -> Tensor:
    """Return the logits (N, V, K) of views with raw features (N, V, D) under tuned tensors."""
    logits: Tensor = made.look(source, {}, params, Inputs(images=None, view_features=features), None).logits
    return logits


def calibrated(case: VlmCase, made: Any) -> Mapping[str, Tensor]:
    """Return what a tuner gave with the tuned class features."""
    found = with_views(case, made)
    with torch.no_grad():
        text = [made.texts(case.clip.source, {"ctx": ctx}) for ctx in found["ctx"]]
    return {**found, "text_features": torch.stack(text)}


def tpt(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay TPT."""
    return with_views(case, method("tpt", **shared(case)))


def ctpt(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay C-TPT."""
    return with_views(case, method("c-tpt", **shared(case), weight=case.values["lambda"]))


def atpt(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay A-TPT."""
    values = case.values
    made = method(
        "a-tpt",
        **shared(case),
        weight=-values["angle_weight"],
        clamp=values["tau"],
        two_step=values["two_step"],
    )
    return calibrated(case, made)


def otpt(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay O-TPT."""
    return calibrated(case, method("o-tpt", **shared(case), weight=case.values["lambda"]))


def rtpt(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay R-TPT."""
    values = case.values
    made = method(
        "r-tpt", **shared(case), neighbours=values["k_neighbours"], temperature=values["weight_temperature"]
    )
    return with_views(case, made)


def rlcf(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay RLCF with the recorded features of its reward model."""
    values = case.values
    made = method("rlcf", **shared(case), samples=values["sample_k"], amplify=values["clipscore_weight"])
    source = case.clip.source_with("a photo of a {}.")
    source.reward = case.clip.reward
    return with_views(case, made, source)


def tps(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay TPS."""
    return tuned(case, method("tps", **shared(case)), name="shift")


def ttl(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay TTL from the recorded first factors."""
    values, source = case.values, case.clip.source
    made = method(
        "ttl", lr=values["lr"], weight_decay=values["weight_decay"], steps=values["tta_steps"], rank=values["r"],
        alpha=values["lora_alpha"], blocks=len(values["layers"]), margin=values["entropy_margin"],
    )  # fmt: skip
    given = {_factor(name, "A"): factor for name, factor in case.group("A0/").items()}

    def start(state: State) -> State:
        return {**state, "params": {**state["params"], **given}}

    inputs = list(case.clip.episodes())
    ran = course(made, source, inputs, episodic=True, start=start)
    first = start(made.init(source, Task(source.num_classes, source.class_names, 1)))
    losses = [made.tune(source, first, one).losses for one in inputs]
    found = {"logits": ran.scores, "losses": torch.stack(losses)}
    for name in case.arrays:
        group, _, layer = name.partition("/")
        if group in ("A", "B"):
            found[name] = ran.stacked("params", _factor(layer, group))
    return found


def _factor(layer: str, group: str) -> str:
    """Return our name of a factor of the reference's query or value map of a block."""
    owner, _, part = layer.rpartition(".")
    return f"{owner}.in_proj_weight.{part[0]}.{group}"


def promptalign(case: VlmCase) -> Undetermined:
    """Replay PromptAlign with the recorded prompts and source statistics.

    Prompts are the same tokens for every image, so before the first step their means are the source's but for the last
    bits. The loss takes the absolute value of that difference: its gradient is a sign that rounding decides, and AdamW
    makes whole steps of it.
    """
    tensors = {**case.group("init/"), **{name: case.given(name) for name in ("source_means", "source_vars")}}
    arrays = _aligned(case, tensors)
    generator, spread = torch.Generator().manual_seed(0), {n: torch.zeros_like(a) for n, a in arrays.items()}
    for _ in range(NUDGES):
        signs = torch.randint(0, 2, tensors["source_means"].shape, generator=generator) * 2 - 1
        moved = _aligned(case, {**tensors, "source_means": tensors["source_means"] + NUDGE * signs})
        for name, array in arrays.items():
            # images and elements alike; the losses (images, steps) of the first step hang on no sign
            axis = 0 if name == "losses" else tuple(range(array.dim()))
            far = (moved[name] - array).abs().amax(axis, keepdim=True)
            spread[name] = torch.maximum(spread[name], far.expand_as(array))
    return Undetermined(arrays, spread)


def _aligned(case: VlmCase, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what PromptAlign gives with prompts and source statistics, by golden array name."""
    values, source = case.values, case.clip.source
    with TemporaryDirectory() as folder:
        file = Path(folder) / "maple.safetensors"
        save_file(dict(tensors), file)
        made = method(
            "promptalign", weights=str(file), lr=values["lr"], steps=values["tta_steps"],
            selection=values["tpt_threshold"], align_selection=values["align_threshold"],
            align_from=values["align_layer_from"], align_to=values["align_layer_to"],
            align_weight=values["distr_loss_w"], marginal=values["tpt_loss"], reference_quirk=True,
        )  # fmt: skip
        inputs = list(case.clip.episodes())
        ran = course(made, source, inputs, episodic=True)
        first = made.init(source, Task(source.num_classes, source.class_names, 1))
    losses = [made.tune(source, first, one).losses for one in inputs]
    found = {f"params0/{name}": value for name, value in ran.states[0]["params"].items()}
    every = {"before": [first["params"]] * len(inputs), "after": [state["params"] for state in ran.states]}
    with torch.no_grad():
        logits = {
            name: torch.cat(
                [made.view_logits(source, p, one.views) for p, one in zip(params, inputs, strict=True)]
            )
            for name, params in every.items()
        }
    return {
        **found, "ctx": ran.stacked("params", "ctx"), "logits": ran.scores, "losses": torch.stack(losses),
        "logits_before": logits["before"], "logits_all_views": logits["after"],
    }  # fmt: skip
