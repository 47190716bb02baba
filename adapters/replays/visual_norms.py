# SPDX-License-Identifier: Apache-2.0
"""Replays of the CLIP methods that tune norm layers on batches of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tta_bench.method import Inputs, SourceModel, State, Task
from tta_bench.parity.vlm_case import VlmCase, course, method

VISUAL, TEXT, EXACT = "visual.", "text.", 100.0
"""The goldens' names of the image tower's tensors; our names of the text tower's; the scale of their final logits."""


def named(params: State) -> dict[str, Tensor]:
    """Return adapted tensors by the goldens' names."""
    towers = {name: value for name, value in params.items() if "." in name}
    renamed = {n.removeprefix(TEXT) if n.startswith(TEXT) else VISUAL + n: p for n, p in towers.items()}
    return {f"params/{name}": value for name, value in renamed.items()}


def rescaled(source: SourceModel, logits: Tensor) -> Tensor:
    """Return logits as the references give them, with a scale of exactly 100."""
    assert source.text is not None
    return logits / source.text.scale * EXACT


def begun(made: Any, source: SourceModel, size: int) -> State:
    """Return a method's first state for batches of a size."""
    return made.init(source, Task(source.num_classes, source.class_names, size))


def _alone(case: VlmCase, made: Any) -> dict[str, Tensor]:
    """Return what a method gave on one batch that starts afresh; prompts have no full stop."""
    source = case.clip.source_with("a photo of a {}")
    images = case.clip.batch[: 8 if case.name == "batch1_half" else None]
    done = made.tune(source, begun(made, source, len(images)), images)
    with torch.no_grad():
        logits = made.predict(source, done.state, Inputs(images=images))
    return {"losses": done.losses, "logits": rescaled(source, logits), **named(done.state["params"])}


def _tokens(case: VlmCase) -> dict[str, Tensor]:
    text = case.clip.source_with("a photo of a {}").text
    assert text is not None
    return {"text_tokens": text.tokens([f"a photo of a {name}" for name in text.class_names])}


def tent(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay TENT as CLIPArTT's code runs it."""
    made = method("tent-clip", lr=case.values["lr"], steps=case.values["steps"])
    return {**_alone(case, made), **_tokens(case)}


def clipartt(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay CLIPArTT."""
    made = method("clipartt", lr=case.values["lr"], steps=case.values["steps"], classes=case.values["K"])
    return {**_alone(case, made), **_tokens(case)}


def watt(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay WATT, predicted with all templates and with the first."""
    values, templates = case.values, case.clip.templates
    settings = {
        "lr": values["lr"], "steps": values["l"], "repetitions": values["m"], "mode": case.name, "templates": templates,
    }  # fmt: skip
    found = _alone(case, method("watt", **settings))
    single = _alone(case, method("watt", **settings, predict_with="source"))
    ensemble = found.pop("logits")
    return {**found, "logits_all_templates": ensemble, "logits_reference_template": single["logits"]}


def stream(case: VlmCase) -> list[Tensor]:
    """Return the batches of an online case."""
    return case.clip.batches(**case.values["stream"])


def bat_clip(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay BAT-CLIP, with the logits after each update too."""
    values, source, batches = case.values, case.clip.source, stream(case)
    made = method(
        "bat-clip", optimizer=values["optimizer"].lower(), lr=values["lr"], steps=values["steps"],
        weight_decay=values["weight_decay"],
    )  # fmt: skip
    ran = course(made, source, [Inputs(images=one) for one in batches], episodic=values["episodic"])
    losses, after, state = [], [], begun(made, source, len(batches[0]))
    for images, end in zip(batches, ran.states, strict=True):
        first = begun(made, source, len(images)) if values["episodic"] else state
        losses.append(made.tune(source, first, images)[0].losses)
        with torch.no_grad():
            after.append(made.look(source, end["params"], images)[2])
        state = end
    found = {"logits": ran.scores, "logits_after": torch.cat(after), "losses": torch.cat(losses)}
    return {**found, **named(ran.last["params"])}


def cliptta(case: VlmCase) -> Mapping[str, Tensor]:
    """Replay CLIPTTA, its memory drawn as recorded."""
    values, source, batches = case.values, case.clip.source, stream(case)
    made = method(
        "cliptta", lr=values["lr"], steps=values["steps"], shots=values["num_shots"] if values["use_memory"] else 0,
        sample=values["sample_size"], beta_tta=values["beta_tta"], beta_reg=values["beta_reg"],
        hard=not values["use_softmax_entropy"], memory_alone=values["old"], tune_text=values["update_text"],
        **_open(values),
    )  # fmt: skip
    inputs = _drawn(case, made, batches)
    ran = course(made, source, inputs)
    losses, scores, otsu, state = [], [], [], begun(made, source, len(batches[0]))
    for one, end in zip(inputs, ran.states, strict=True):
        losses.append(made.tune(source, state, one.images, one.draws).losses)
        if values["open_set"]:
            with torch.no_grad():
                otsu.append(made.started(source, state, one.images)["params"]["alpha"])
                scores.append(made.known(source, one.images, end["params"]))
        state = end
    found = {"logits": rescaled(source, ran.scores), "losses": torch.stack(losses), **named(state["params"])}
    if values["use_memory"]:
        found |= _memory(source, state, made.shots)
    if values["open_set"]:
        alpha = ran.stacked("params", "alpha")
        found |= {"scores": torch.cat(scores), "otsu": torch.stack(otsu), "alpha": alpha}
    return found


def _open(values: Mapping[str, Any]) -> dict[str, Any]:
    if not values["open_set"]:
        return {}
    return {"outliers": values["loss_ood_type"], "beta_ood": values["beta_ood"], "gamma": values["gamma"]}


def _drawn(case: VlmCase, made: Any, batches: list[Tensor]) -> list[Inputs]:
    """Return the inputs of the steps, with numbers that order the memory's slots as they were drawn."""
    if not made.shots:
        return [Inputs(images=images) for images in batches]
    found = []
    for images, slots in zip(batches, case.given("draws"), strict=True):
        keys = torch.ones(1, *slots.shape[:2], made.shots + 1)  # the last place takes the slots that are none
        places = torch.where(slots < 0, made.shots, slots)
        order = torch.arange(slots.shape[-1]).to(keys) / made.shots - 1
        keys[0].scatter_(-1, places, order.expand(places.shape))
        found.append(Inputs(images=images, draws=keys[..., : made.shots]))
    return found


def _memory(source: SourceModel, state: State, shots: int) -> dict[str, Tensor]:
    """Return how many images the memory has of each class, and their confidences, padded with zeros."""
    counts = state["labels"].bincount(minlength=source.num_classes)
    table = torch.zeros(source.num_classes, shots, dtype=state["confidence"].dtype)
    for label in range(source.num_classes):
        own = state["confidence"][state["labels"] == label]
        table[label, : len(own)] = own
    return {"memory_count": counts, "memory_confidence": table}
