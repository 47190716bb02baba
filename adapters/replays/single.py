# SPDX-License-Identifier: Apache-2.0
"""Replays of VTE, ZERO, MTA, OnZeta and ECALP."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tta_bench.parity.vlm_case import VlmCase

from ._watch import count_of_views, replayed


def vte(case: VlmCase) -> Mapping[str, Tensor]:
    """Return the logits."""
    views = count_of_views(case, True)
    return {"logits": replayed(case, "vte", views=views, selection=case.values["selection"]).scores}


def zero(case: VlmCase) -> Mapping[str, Tensor]:
    """Return the votes; which images tie is only told."""
    for told in ("tie_samples", "fallback_samples"):
        case.given(told)
    return {
        "votes": replayed(case, "zero", views=case.values["views"], selection=case.values["gamma"]).scores
    }


def mta(case: VlmCase) -> Mapping[str, Tensor]:
    """Return logits, mode and what led to it."""
    given = case.values
    ran = replayed(
        case, "mta", views=count_of_views(case, True), lambda_y=given["lambda_y"], lambda_q=given["lambda_q"],
        neighbours=given["knn_fraction"], steps=given["max_iter"], tolerance=given["th"],
    )  # fmt: skip
    found = {name: ran.evidence[name] for name in ("mode", "inlierness", "bandwidth")}
    return {**found, "logits": ran.scores, "weighted_density": ran.evidence["weights"]}


def onzeta(case: VlmCase) -> Mapping[str, Tensor]:
    """Return both predictions, the dual variable and the proxies."""
    given = case.values
    ran = replayed(
        case, "onzeta", lr_proxy=given["cw"], lr_dual=given["cr"], beta=given["beta"], alpha=given["alpha"],
        tau_text=given["tau_t"], tau_image=given["tau_i"],
    )  # fmt: skip
    return {
        "combo_label": ran.scores,
        "text_label": ran.evidence["text"],
        "rho": ran.last["rho"],
        "w": ran.last["proxies"],
    }


def ecalp(case: VlmCase) -> Mapping[str, Tensor]:
    """Return probabilities and scores."""
    given = case.values
    ran = replayed(
        case, "ecalp", text_neighbours=given["k_text"], image_neighbours=given["k_image"], gamma=int(given["gamma"]),
        alpha=given["alpha"], steps=given["it"],
    )  # fmt: skip
    return {"probs": ran.scores, "scores": ran.evidence["scores"]}
