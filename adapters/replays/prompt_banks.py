# SPDX-License-Identifier: Apache-2.0
"""Replays of the methods that carry prompts, or class features, from image to image."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tta_bench.method import Inputs, State
from tta_bench.parity.vlm_case import VlmCase, course, method


def dynaprompt(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay DynaPrompt over the images twice, from the recorded offsets."""
    values, source = case.values, case.clip.source
    made = method(
        "dynaprompt", lr=values["lr"], weight_decay=values["weight_decay"], selection=values["selection_p"],
        prompts_kept=values["num_prompts"], keep_moments=case.name == "ttavlm", reference_quirk=True,
    )  # fmt: skip
    offsets = case.given("ctx_init")

    def start(state: State) -> State:
        return {**state, "params": {"offsets": offsets}}

    inputs = list(case.clip.episodes(passes=2))
    ran = course(made, source, inputs, start=start)
    losses = [
        made.hand_on(source, state, one).losses
        for state, one in zip([ran.first, *ran.states], inputs, strict=False)
    ]
    return {
        "base_ctx": made.prompts(source).ctx, "logits": ran.scores, "ctx": ran.stacked("params", "offsets"),
        "losses": torch.stack(losses), "order": ran.stacked("order"), "use": ran.stacked("use"),
    }  # fmt: skip


def histpt(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay HisTPT over the images, as often as the case says."""
    values, source = case.values, case.clip.source
    made = method(
        "histpt", lr=values["lr"], weight_decay=values["weight_decay"], momentum=values["momentum"],
        optimizer=values["optimizer"].lower(), steps=values["tta_steps"], selection=values["selection_p"],
        memory=values["memory_size"], hard=values["hard_topk"], keep=values["ema_momentum"],
        reset_prompt=values["episodic"],
    )  # fmt: skip
    inputs = list(case.clip.episodes(passes=values["passes"]))
    if values["views"] == "first":
        inputs = [one._replace(view_features=_first(one)) for one in inputs]
    ran = course(made, source, inputs)
    tuned = [
        made.remember(source, state, one).tuned
        for state, one in zip([ran.first, *ran.states], inputs, strict=False)
    ]
    folders = {
        "logits": ran.scores, "ctx": ran.stacked("params", "ctx"), "ema": ran.last["global"],
        "memory_local": ran.last["local"].mean(0), "memory_hard": ran.last["hard"].mean(0),
        "entropy_history": ran.last["entropies"], "losses": torch.stack([one.losses[-1] for one in tuned]),
    }  # fmt: skip
    names = ("pseudo", "weights", "entropy")
    return {**folders, **{name: torch.stack([one.extra[name] for one in tuned]) for name in names}}


def _first(one: Inputs) -> Tensor:
    """Return the features (1, 1, D) of view 0 alone."""
    assert one.view_features is not None
    return one.view_features[:, :1]
