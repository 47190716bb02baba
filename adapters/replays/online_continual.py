# SPDX-License-Identifier: Apache-2.0
"""Plans for the online methods that augment images, remember them, or keep a second network.

The references ran with augmentations that can be named: a flip, or a roll. Ours take theirs from the draws, as
grids of the places that each pixel is read from, so the replay hands over the grid of the flip or roll; it moves
whole pixels and is exact where the sides are powers of two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tta_bench.augment import Draws, still
from tta_bench.method import Inputs, State
from tta_bench.parity.folder import below
from tta_bench.parity.online_case import Case, Plan, method

from .online import optimiser


def _grid(case: Case) -> Tensor:
    """Return the grid (1, H, W, 2) that leaves images as they are."""
    return still(case.source.image_shape)["grid"]


def drawn(draws: Any) -> Callable[[Case, int, Tensor], Inputs]:
    """Return what gives a step these draws."""

    def inputs(case: Case, index: int, images: Tensor) -> Inputs:
        return Inputs(images=images, draws=draws)

    return inputs


def flip(case: Case) -> Draws:
    return {"grid": _grid(case).flip(2)}


def _weighted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters that ROID and CMF share."""
    return {
        **optimiser(values),
        "temperature": values.get("temperature", 1 / 3),
        "keep": values.get("momentum_probs", 0.9),
        "weighting": values.get("use_weighting", True),
        "consistency": values.get("use_consistency", True),
        "prior_correction": values.get("use_prior_correction", True),
    }


def roid(case: Case) -> Plan:
    made = method("roid", **_weighted(case.values), keep_weights=case.values.get("momentum_src", 0.99))
    return Plan(made, inputs=drawn(flip(case)))


def cmf(case: Case) -> Plan:
    values = case.values
    made = method("cmf", **_weighted(values), alpha=values["alpha"], gamma=values["gamma"], noise=values["Q"])
    return Plan(made, inputs=drawn(flip(case)))


def cotta(case: Case) -> Plan:
    values, grid = case.values, _grid(case)
    loss = "symmetric" if values["loss"].startswith("symmetric") else "teacher"
    made = method(
        "cotta", **optimiser(values), loss=loss, confidence=values["ap"], views=values["n_augmentations"],
        keep=values["teacher_momentum"], restore=values["rst"],
    )  # fmt: skip
    views = torch.cat([grid, grid.flip(2), grid.roll(2, 2), grid.roll(-2, 1)])
    count = sum(case.source.params[name].numel() for name in made.adapted_tensors(case.source))
    restored = torch.full((1, count), values["rst"] == 1)
    draws = {"views": {"grid": views[None]}, "restored": restored}
    return Plan(made, inputs=drawn(draws), tensors=with_teacher)


def with_teacher(state: State) -> dict[str, Tensor]:
    """Return the student's tensors, and the teacher's by names of its own."""
    return {**state["params"], **{f"teacher.{name}": value for name, value in state["teacher"].items()}}


def rotta(case: Case) -> Plan:
    values = case.values
    made = method(
        "rotta", **optimiser(values), capacity=values["memory_size"], every=values["update_frequency"],
        alpha=values["alpha"], nu=values["nu"], time_weight=values["lambda_t"],
        uncertainty_weight=values["lambda_u"],
    )  # fmt: skip

    def tensors(state: State) -> dict[str, Tensor]:
        stats = {name.replace("running_", "source_"): value for name, value in state["stats"].items()}
        return {**with_teacher(state), **stats}

    updates = len(case.stream[0]) // values["update_frequency"] + 1
    return Plan(
        made, inputs=drawn({"grid": flip(case)["grid"].expand(1, updates, -1, -1, -1)}), tensors=tensors
    )


def note(case: Case) -> Plan:
    values = case.values
    made = method(
        "note", lr=values["lr"], capacity=values["memory_size"], every=values["update_every"], k=values["iabn_k"],
        momentum_stats=values["bn_momentum"],
    )  # fmt: skip

    def tensors(state: State) -> dict[str, Tensor]:
        return {**state["params"], **state["stats"]}

    # The lowest class, its oldest image, and always accepted: what the smallest uniform numbers stand for.
    return Plan(made, inputs=drawn(torch.zeros(len(case.stream[0]), 3)), tensors=tensors)


def _prototypical(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters that RMT and SANTA share."""
    return {
        **optimiser(values),
        "temperature": values["temperature"],
        "width": values["projection_dim"],
        "contrast": values["lambda_cont"],
        "agreement": values["lambda_ce_trg"],
    }


def _projected(case: Case, state: State) -> State:
    """Return the first state with the recorded projector; the prototypes are our own."""
    return {**state, "projector": below(case.arrays, "projector__")}


def santa(case: Case) -> Plan:
    return Plan(method("santa", **_prototypical(case.values)), inputs=drawn(flip(case)), start=_projected)


def rmt(case: Case) -> Plan:
    values, size = case.values, len(case.stream[0])
    warmup = values["warmup_steps"]
    made = method(
        "rmt", **_prototypical(values), keep=values["teacher_momentum"], replay=values["lambda_ce_src"],
        warmup_samples=warmup * size,
    )  # fmt: skip

    def inputs(case: Case, index: int, images: Tensor) -> Inputs:
        assert case.split is not None
        replay, labels = case.split.batch(warmup + index, size)
        return Inputs(images=images, draws=flip(case), source_images=replay, source_labels=labels)

    return Plan(made, inputs=inputs, start=_projected, tensors=with_teacher, rewinds=False)


def adacontrast(case: Case) -> Plan:
    values, grid = case.values, _grid(case)
    given = optimiser(values)
    made = method(
        "adacontrast", **given, queue=values["queue_size"], temperature=values["temperature"],
        keep=values["teacher_momentum"], neighbours=values["num_neighbors"], reference_quirk=True,
    )  # fmt: skip

    def start(case: Case, state: State) -> State:
        labels = case.arrays["mem_labels"].long()
        queue = {**state["queue"], "keys": case.arrays["mem_feat"].T.contiguous(), "labels": labels}
        return {
            **state,
            "queue": queue,
            "seen": torch.full_like(state["seen"], values["first_X_samples_start"]),
        }

    def tensors(state: State) -> dict[str, Tensor]:
        momentum = {f"teacher.{name}": value for name, value in state["momentum_model"].items()}
        return {**state["params"], **state["stats"], **momentum}

    draws = {"weak": {"grid": grid}, "query": flip(case), "key": {"grid": grid.roll(2, 2)}}
    return Plan(made, inputs=drawn(draws), start=start, tensors=tensors)
