# SPDX-License-Identifier: Apache-2.0
"""Plans for the newest online methods."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tta_bench.method import Inputs, State
from tta_bench.parity.folder import below
from tta_bench.parity.online_case import Case, Plan, method

from .online import lower_norms, optimiser, selection
from .online_continual import drawn, flip, with_teacher


def neo(case: Case) -> Plan:
    values = case.values
    made = method("neo", variant=values["variant"], alpha=values.get("alpha", 0.1))
    return Plan(made, tensors=lambda state: {"center": state["centre"], "count": state["count"]}, sums=False)


def come_tent(case: Case) -> Plan:
    values = case.values
    made = method("come-tent", **optimiser(values), steps=values.get("steps", 1), opinion_classes=values["K"])
    return Plan(made, reset_each_batch=values.get("episodic", False))


def come_eata(case: Case) -> Plan:
    def tensors(state: State) -> dict[str, Tensor]:
        return {**state["params"], **{f"fisher__{name}": value for name, value in state["fisher"].items()}}

    values = case.values
    made = method("come-eata", **selection(case), alpha=values["fisher_alpha"], opinion_classes=values["K"])
    return Plan(made, tensors=tensors)


def come_sar(case: Case) -> Plan | str:
    values, unit = case.values, math.log(case.source.num_classes)
    made = method(
        "come-sar", **optimiser(values), margin=values["e_margin"] / unit, rho=values["rho"],
        recovery=values["reset_constant_em"], layers=lower_norms(case), reference_quirk=True,
        opinion_classes=values["K"],
    )  # fmt: skip
    return Plan(made)


def _unmixed(case: Case) -> dict[str, Any]:
    values = case.values
    return {
        "components": values["components"], "noise": values["alpha"], "temperature": values["temperature"],
        "full_batch": values["batch_size_max"],
    }  # fmt: skip


def _components(state: State) -> dict[str, Tensor]:
    renamed = {"running_mean": "means", "running_var": "vars"}
    stats = {f"{n.rpartition('.')[0]}.{renamed[n.rpartition('.')[2]]}": v for n, v in state["stats"].items()}
    return {**state.get("params", {}), **stats}


def unmix_tns(case: Case) -> Plan:
    noise = {f"{name}.running_mean": eps[None] for name, eps in below(case.arrays, "noise__").items()}
    if case.values["adapt"] == "none":
        made = method("unmix-tns", **_unmixed(case))
    else:
        made = method(
            "unmix-tns-tent", **_unmixed(case), **optimiser(case.values), steps=case.values["steps"]
        )
    return Plan(made, inputs=drawn(noise or None), tensors=_components)


def foa(case: Case) -> Plan:
    values = case.values
    made = method(
        "foa", prompts=values["num_prompts"], population=values["popsize"], weight=values["fitness_lambda"],
        sigma=values["sigma0"],
    )  # fmt: skip

    def inputs(case: Case, index: int, images: Tensor) -> Inputs:
        draws = {"z": case.arrays["z"][index][None], "first": case.arrays["first_prompts"]}
        return Inputs(images=images, draws=draws)

    def tensors(state: State) -> dict[str, Tensor]:
        search = {f"es.{name}": value for name, value in state["search"].items()}
        return {**search, "prompts": state["prompts"][None], "hist": state["history"]}

    def first(state: State) -> dict[str, Tensor]:
        return {"source_mean": state["source_mean"], "source_std": state["source_std"]}

    return Plan(
        made, inputs=inputs, tensors=tensors, built=first, observed=lambda state: {"losses": state["fitness"]}
    )


def foa_shift(case: Case) -> Plan:
    return Plan(
        method("foa", prompts=0),
        tensors=lambda state: {"hist": state["history"]},
        built=lambda state: {"source_mean": state["source_feature"]},
    )


def actmad(case: Case) -> Plan:
    values = case.values
    episodic = "steps" in values
    made = method(
        "actmad", **optimiser(values), layers=tuple(values["layers"]), scale=values["scale"],
        steps=values.get("steps", 1), average="images" if episodic else "batches",
        logits_from=values.get("predicts", "after"), samples=sum(values.get("source_batches", [10**6])),
    )  # fmt: skip

    def first(state: State) -> dict[str, Tensor]:
        parts = (("source_mean", state["source_mean"]), ("source_var", state["source_var"]))
        return {f"{part}__{name}": value for part, found in parts for name, value in found.items()}

    return Plan(made, reset_each_batch=True, built=first) if episodic else Plan(made)


def petta(case: Case) -> Plan:
    values = case.values
    made = method(
        "petta", **optimiser(values), capacity=values["memory_size"], alpha_bn=values["bn_alpha"],
        alpha_0=values["alpha_0"], lambda_0=values["lambda_0"], anchor=values["anchor_weight"],
        adaptive_lambda=values["adaptive_lambda"], adaptive_alpha=values["adaptive_alpha"],
        regulariser=values["regularizer"], loss=values["loss"], time_weight=values["lambda_t"],
        uncertainty_weight=values["lambda_u"],
    )  # fmt: skip

    def start(case: Case, state: State) -> State:
        mean, var = case.arrays["source_feature_mean"], case.arrays["source_feature_var"]
        known = torch.ones_like(state["known"])
        return {**state, "source_mean": mean, "source_var": var, "prototypes": mean.clone(), "known": known}

    def tensors(state: State) -> dict[str, Tensor]:
        nets = (("", "stats"), ("teacher.", "teacher_stats"), ("anchor.", "anchor_stats"))
        stats = {p + n.replace("running_", "source_"): v for p, key in nets for n, v in state[key].items()}
        return {**with_teacher(state), **stats, "prototypes": state["prototypes"]}

    return Plan(made, inputs=drawn(flip(case)), start=start, tensors=tensors)


def zerosiam(case: Case) -> Plan:
    values = case.values
    made = method(
        "zerosiam", **optimiser(values), projector_lr=values["projector_lr"], reforward=values["reforward"]
    )
    return Plan(made, tensors=lambda state: {**state["params"], "projector": state["projector"]})
