# SPDX-License-Identifier: Apache-2.0
"""Replay of zero-shot classification with one template and with several."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tta_bench.parity.vlm_case import VlmCase, course, method


def zero_shot(case: VlmCase) -> Mapping[str, Tensor]:
    """Return logits and class weights with the first template and with all of them."""
    features = case.features
    single = features.source_of(features.raw[0])
    assert single.text is not None
    assert features.source.text is not None
    ensemble = features.source_of(features.source.text.prototypes(features.templates))
    scores = {
        name: course(method("clip"), source, features.stream()).scores
        for name, source in (("single", single), ("ensemble", ensemble))
    }
    return {
        "logits_single": scores["single"],
        "logits_ensemble": scores["ensemble"],
        "probs_ensemble": scores["ensemble"].softmax(-1),
        "weights_single": single.text.prototypes(),
        "weights_ensemble": ensemble.head_weight(),
    }
