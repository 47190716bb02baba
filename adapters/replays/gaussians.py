# SPDX-License-Identifier: Apache-2.0
"""Replays of the methods that estimate a Gaussian or a centre for each class: DOTA, BCA and StatA."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tta_bench.parity.plans import method
from tta_bench.parity.vlm_case import VlmCase

from ._watch import as_stored, count_of_views, replayed, watch

STATA = {"all": (0, 60), "batch0": (0, 30), "batch1": (30, 60)}
"""First and last image of a case's batch."""


def dota(case: VlmCase) -> Mapping[str, Tensor]:
    """Return logits, discriminants and estimates; the weights of the discriminants where they are recorded."""
    given = case.values
    several = given.get("views", "all" if case.name == "multiview" else "first") == "all"
    values = {
        "sigma": given["sigma"], "epsilon": given["epsilon"], "eta": given["eta"], "rho": given["rho"],
        "selection": given["selection"], "start": "text" if given["mu_init"] == "text" else "constant",
        "shrink_first": given.get("update_first", False), "views": count_of_views(case, several),
    }  # fmt: skip
    ran = replayed(case, "dota", stored="update_first" not in given, **values)
    found = {
        "logits": ran.scores,
        "dota_scores": ran.evidence["discriminant"],
        "mu": ran.last["means"],
        "counts": ran.last["counts"],
        "pooled_cov": ran.last["covariances"].mean(0),
    }
    if "weights" in case.arrays:
        found["weights"] = method("dota", **values).weight(ran.evidence).squeeze(-1)
    return found


def bca(case: VlmCase) -> Mapping[str, Tensor]:
    """Return probabilities, centres, prior and their counts."""
    given = case.values
    ran = replayed(
        case, "bca", views=count_of_views(case, given["views"] == "all"), selection=given["selection_p"],
        centre_threshold=given["threshold1"], centre_count=given["init_count1"],
        prior_threshold=given["threshold2"], prior_count=given["init_count2"],
    )  # fmt: skip
    return {
        "probs": ran.scores,
        "mu": ran.last["centres"],
        "prior": ran.last["prior"],
        "count1": ran.last["centre_counts"],
        "count2": ran.last["prior_counts"],
    }


def stata(case: VlmCase) -> Mapping[str, Tensor]:
    """Return zero-shot probabilities and assignments of one batch."""
    given, (start, stop) = case.values, STATA[case.name]
    made = method(
        "stata", alpha=given["alpha"], affinity=given["lam_lap"], neighbours=given["k"], steps=given["iters"],
        soft=given["soft"],
    )  # fmt: skip
    batch = case.features.views[start:stop]
    ran = watch(as_stored(made), case.features.source, case.features.stream(len(batch), batch))
    return {"z": ran.scores, "zero_shot_probs": ran.evidence["zero_shot"]}
