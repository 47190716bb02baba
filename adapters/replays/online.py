# SPDX-License-Identifier: Apache-2.0
"""Replays of the golden cases of the online methods by the public methods.

To replay another method write a function from a `Case` to a `Plan` (or to a sentence that says why the case is
not replayed) and register it as ``online/NAME`` in the entry-point group ``tta_bench.replays``. Most need the
method and its hyper-parameters:

    def sar(case: Case) -> Plan:
        return Plan(method("sar", **optimiser(case.values), margin=case.values["margin"]))

A reference that drew at random had its draws recorded or replaced; `Plan.inputs` hands them to the step:

    def _flipped(case: Case, index: int, images: Tensor) -> Inputs:
        return Inputs(images=images, views=torch.stack([images, images.flip(-1)], dim=1))

Initial values that a case brings (``case.arrays``) enter the first state through `Plan.start`, and
`Plan.tensors` names the tensors of a state whose final values are stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tta_bench.method import Inputs, State
from tta_bench.parity.folder import Entries, entry
from tta_bench.parity.online_case import Case, Plan, method


def optimiser(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters that stand for the optimiser of a case."""
    given = Entries(
        entry(values, "optimizer", "the hyper-parameters of the case"), "the optimizer of the case"
    )
    decay = given.get("wd", 0.0)
    if given["method"] == "Adam":
        betas = (given["beta1"], given["beta2"])
        return {"optimizer": "adam", "lr": given["lr"], "betas": betas, "weight_decay": decay}
    return {
        "optimizer": "sgd",
        "lr": given["lr"],
        "momentum": given.get("momentum", 0.0),
        "nesterov": given.get("nesterov", False),
        "weight_decay": decay,
    }


def source(case: Case) -> Plan:
    return Plan(method("source"))


def norm_test(case: Case) -> Plan:
    return Plan(method("norm", statistics="batch"))


def norm_alpha(case: Case) -> Plan:
    return Plan(method("norm", statistics="alpha", alpha=entry(case.values, "alpha", "the case")))


def norm_ema(case: Case) -> Plan:
    return Plan(method("norm", statistics="ema", momentum=0.1), sums=False)


def tent(case: Case) -> Plan:
    values = case.values
    made = method("tent", **optimiser(values), steps=values.get("steps", 1), window=values.get("window", 1))
    return Plan(made, reset_each_batch=values.get("episodic", False))


def selection(case: Case) -> dict[str, Any]:
    """Return the hyper-parameters of the methods that select samples by entropy and redundancy."""
    values, unit = case.values, math.log(case.source.num_classes)
    return {**optimiser(values), "margin": values["e_margin"] / unit, "redundancy": values["d_margin"]}


def eta(case: Case) -> Plan:
    return Plan(method("eta", **selection(case)))


def eata(case: Case) -> Plan:
    def tensors(state: State) -> dict[str, Tensor]:
        return {**state["params"], **{f"fisher__{name}": value for name, value in state["fisher"].items()}}

    made = method("eata", **selection(case), alpha=case.values["fisher_alpha"])
    return Plan(made, tensors=tensors)


def rdumb(case: Case) -> Plan:
    return Plan(method("rdumb", **selection(case), every=case.values["reset_every"]))


def lower_norms(case: Case) -> tuple[str, ...]:
    """Return the norm layers that the reference adapts in the tiny models: all but the transformer's final one."""
    kinds = ("batch", "group", "layer")
    return tuple(one.name for one in case.source.layers if one.kind in kinds and one.name != "norm")


def sar(case: Case) -> Plan | str:
    recovers = case.info.get("diagnostics_first_pass", {}).get("recovery_reset_at_batch")
    if recovers and not case.name.endswith("FIXEDRESET"):
        return "the reference keeps its momentum through a recovery; the case FIXEDRESET stands for it"
    values, unit = case.values, math.log(case.source.num_classes)
    made = method(
        "sar", **optimiser(values), margin=values["e_margin"] / unit, rho=values.get("rho", 0.05),
        recovery=values["reset_constant_em"], layers=lower_norms(case), reference_quirk=True,
    )  # fmt: skip
    return Plan(made)


def deyo(case: Case) -> Plan:
    values, unit = case.values, math.log(case.source.num_classes)
    kind = values.get("aug_type", "patch")
    made = method(
        "deyo", **optimiser(values), margin=values.get("ent_margin", 0.5 * unit) / unit, destroy=kind,
        plpd=values["plpd_threshold"], patches=values.get("patch_len", 4), layers=lower_norms(case),
    )  # fmt: skip
    order = case.arrays.get(f"{kind}_perm", torch.arange(made.patches**2))

    def permuted(case: Case, index: int, images: Tensor) -> Inputs:
        return Inputs(images=images, draws=None if kind == "occ" else order.long().expand(len(images), -1))

    return Plan(made, inputs=permuted)


def rpl(case: Case) -> Plan:
    return Plan(method("rpl", **optimiser(case.values), q=case.values["q"]))


def shot(case: Case) -> Plan:
    values = case.values
    theta = values["theta"] if values["algorithm"] == "SHOT" else 0.0
    return Plan(method("shot-im", lr=values["lr"], theta=theta, beta=values["beta"], steps=values["steps"]))


def pl(case: Case) -> Plan:
    values = case.values
    made = method(
        "pl", lr=values["lr"], beta=values["beta"], steps=values["steps"], reference_quirk=True,
        trains="classifier" if values["algorithm"] == "PLClf" else "all",
    )  # fmt: skip
    return Plan(made)


def memo(case: Case) -> Plan:
    def viewed(case: Case, index: int, images: Tensor) -> Inputs:
        views = [images, images.flip(-1), images.roll(2, -1), images.roll(-2, -2)]
        return Inputs(images=images, views=torch.stack(views, dim=1))

    values = case.values
    made = method("memo", **optimiser(values), views=values["n_views"], alpha=values["bn_alpha"])
    return Plan(made, inputs=viewed, per_image=True)


def lame(case: Case) -> Plan:
    values = case.values
    made = method(
        "lame", affinity=values["affinity"], k=values["knn"], symmetric=values["force_symmetry"],
        steps=values["max_steps"], tolerance=values["tol"],
    )  # fmt: skip
    # It stops when two float32 energies are the same bits, so how often it iterates hangs on rounding.
    return Plan(made, sums=False, tolerance=5e-3)


def t3a(case: Case) -> Plan:
    def tensors(state: State) -> dict[str, Tensor]:
        labels = one_hot(state["labels"], case.source.num_classes).to(state["supports"].dtype)
        return {"supports": state["supports"], "labels": labels, "ent": state["entropies"]}

    return Plan(method("t3a", keep=case.values["filter_K"], reference_quirk=True), tensors=tensors)
