# SPDX-License-Identifier: Apache-2.0
"""Replays of CALIP and Panda on the tiny CLIP model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.method import Inputs, Task
from tta_bench.parity.plans import method
from tta_bench.parity.vlm_case import VlmCase
from tta_bench.steps import step

from .._both_towers import parted

DECAY: dict[str, Any] = {"optimizer": "adamw", "weight_decay": 0.01}


def calip(case: VlmCase) -> Mapping[str, Tensor]:
    """Return logits, their guided parts, and the tokens."""
    given, source, images = case.values, case.clip.source, case.clip.batch
    made = method(
        "calip", texts_weight=given["beta2"], patches_weight=given["beta3"],
        scale=0.0 if given["scale"] == "exp" else float(given["scale"]),
    )  # fmt: skip
    with torch.no_grad():
        state = made.init(source, Task(source.num_classes, source.class_names, len(images)))
        _, evidence = made.observe(source, state, Inputs(images))
        patches = source.patches(images)
    assert patches is not None
    tokens = torch.cat([patches[0].unsqueeze(1), patches[1]], 1)
    return {
        "tokens": F.normalize(tokens, dim=-1),
        "logits": made.score(source, evidence),
        "logits1": evidence["texts"],
        "logits2": evidence["patches"],
    }


def panda(case: VlmCase) -> Mapping[str, Tensor]:
    """Return logits and losses of every batch, and the norm layers after the last."""
    given, source, stream = case.values, case.clip.source, case.values["stream"]
    made = method(
        "panda", base=given["base"], beta=given["beta"], lr=given["lr"], patch=given["patch_size"],
        margin=given.get("e_margin_multiplier", 0.4), **(DECAY if given["base"] == "bat" else {}),
    )  # fmt: skip
    batches = case.clip.batches(stream["size"], stream["views"], stream["batches"])
    state = made.init(source, Task(source.num_classes, source.class_names, stream["size"]))
    base, patches = (case.given(name) for name in ("base_index", "patch_source"))
    draws = zip(base.chunk(len(batches)), patches.chunk(len(batches)), strict=True)
    sets = 2 if given["base"] == "tent" else 1
    scores, losses = [], []
    for images, (own, theirs) in zip(batches, draws, strict=True):
        drawn = {"base": own.view(sets, -1).long(), "patches": theirs.view(sets, len(own) // sets, -1).long()}
        inputs = Inputs(images, draws=drawn)
        losses.append(made.update(source, state, images, made.composites(source, inputs, 0)).loss)
        stepped = step(made, source, state, inputs)
        state = stepped.state
        scores.append(stepped.scores)
    visual, texts = parted(state["params"])
    params = {f"params/visual.{name}": value for name, value in visual.items()}
    params |= {f"params/{name}": value for name, value in texts.items()}
    return {"logits": torch.cat(scores), "losses": torch.stack(losses), **params}
