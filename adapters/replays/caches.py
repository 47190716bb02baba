# SPDX-License-Identifier: Apache-2.0
"""Replays of the methods that remember test features: TDA, BoostAdapter, DMN, DPE and OGA."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tta_bench.parity.plans import method
from tta_bench.parity.vlm_case import VlmCase

from ._watch import as_stored, count_of_views, replayed, watch

PORT = "ttavlm"
"""Start of the names of cases that a port of the method gave, not the authors' code."""
PORT_EPS = 1e-5
COVARIANCES = {"RidgeMoorePenrose": "both", "Ridge": "ridge", "MoorePenrose": "pseudo-inverse"}


def tda(case: VlmCase) -> Mapping[str, Tensor]:
    """Return logits and both caches."""
    several = case.name == "official_multiview"
    return _caching(case, "tda", "multiview_selection", views=count_of_views(case, several))


def boostadapter(case: VlmCase) -> Mapping[str, Tensor]:
    """Return logits and both caches, without an image's own views."""
    values = {"delta": case.values["delta"], "together": case.name == "official_ood"}
    return _caching(case, "boostadapter", "selection", views=count_of_views(case, True), **values)


def _caching(case: VlmCase, name: str, selection: str, **values: Any) -> Mapping[str, Tensor]:
    given, port = case.values, case.name.startswith(PORT)
    ran = replayed(
        case, name, stored=port, **values,
        alpha=given["alpha"], beta=given["beta"], capacity=given["pos_cap"], selection=given[selection],
        negative_alpha=given["nalpha"], negative_beta=given["nbeta"], negative_capacity=given["neg_cap"],
        entropy_band=(given["lo"], given["hi"]), mask_band=(given["mlo"], given["mhi"]),
        entropy_eps=PORT_EPS if port else 0.0,
    )  # fmt: skip
    caches = {}
    for theirs, ours in (("pos", "positive"), ("neg", "negative")):
        for part, tensor in (("feat", "keys"), ("ent", "entropy"), ("count", "count")):
            caches[f"{theirs}_cache_{part}"] = ran.last[ours][tensor]
    return {"logits": ran.scores, **caches, "neg_cache_prob": ran.last["negative"]["maps"]}


def dmn(case: VlmCase) -> Mapping[str, Tensor]:
    """Return the sum of both predictions, and the memory."""
    given, port = case.values, case.name.startswith(PORT)
    settings: dict[str, Any] = {"view_eps": 0.0, "entropy_eps": PORT_EPS, "always": True} if port else {}
    ran = replayed(
        case, "dmn", **settings, mean_logits=port, views=count_of_views(case, case.name != "ttavlm_dmn_weak"),
        memory=given["mem"], alpha=given["alpha"], beta=given["beta"], selection=given["selection"],
    )  # fmt: skip
    memory = ran.last["memory"]
    found = {
        "final": (1 + given["alpha"]) * ran.scores,
        "memory": memory["keys"],
        "memory_entropy": memory["entropy"],
        "memory_count": memory["count"],
    }
    return found if port else found | {"p_text": ran.evidence["text"], "p_memory": ran.evidence["memory"]}


def dpe(case: VlmCase) -> Mapping[str, Tensor]:
    """Return logits, text prototypes, how often they moved, and the bank."""
    given, port = case.values, case.name.startswith(PORT)
    ran = replayed(
        case, "dpe", stored=port, views=count_of_views(case, True), lr=given["text"], align=given["align"],
        alpha=given["alpha"], beta=given["beta"], capacity=given["cap"], temperature=given["infonce_tau"],
        selection=given["selection"], predicts="confident" if case.name == "official_dataset_A" else "image",
        text_entropy=not port, entropy_eps=PORT_EPS if port else 0.0,
    )  # fmt: skip
    bank = ran.last["bank"]
    return {
        "logits": ran.scores,
        "text_prototypes": ran.last["text"],
        "num_avg": ran.last["moves"].reshape(1),
        "cache_feat": bank["keys"],
        "cache_ent": bank["entropy"],
        "cache_count": bank["count"],
    }


def oga(case: VlmCase) -> Mapping[str, Tensor]:
    """Return probabilities, densities, Gaussians, the memory and which images entered it."""
    given, features = case.values, case.features
    views, text = features.views, features.text
    if given["dims"]:
        views, text = (F.normalize(part[..., : given["dims"]], dim=-1) for part in (views, text))
    made = method(
        "oga", memory=given["shot_capacity"], tau=given["tau"], covariance=COVARIANCES[given["sig_type"]],
        unit_means=given["normalize_mu"], over_capacity=True, entropy_eps=given["entropy_eps"],
    )  # fmt: skip
    source = features.source_of(text)
    ran = watch(as_stored(made), source, features.stream(given["batch"], views))
    memory = ran.last["memory"]
    used = torch.arange(made.memory) < memory["count"].unsqueeze(-1)
    return {
        "probs": ran.scores,
        "log_density": ran.evidence["log_density"],
        "stored": ran.evidence["stored"],
        "mu": ran.last["means"],
        "inv_sigma": ran.last["precision"],
        "memory_entropy": torch.where(used, memory["entropy"], math.log(len(text))),
        "memory_used": used,
    }
