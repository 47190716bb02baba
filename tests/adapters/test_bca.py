# SPDX-License-Identifier: Apache-2.0
"""BCA: which rows move, and that predictions stay probabilities."""

import torch
from tta_bench.adapters.bca import Bca


def test_only_the_predicted_class_moves_and_only_above_its_threshold(recorded, texts, watch):
    source, x = recorded(texts, scale=3.0), (texts[0] + texts[1])[None] / (texts[0] + texts[1]).norm()
    p = (3 * x[0] @ texts.T).softmax(-1)
    top = int(p.argmax())
    method = Bca(centre_count=4.0, centre_threshold=0.0, prior_threshold=0.0, prior_count=1.0)
    state, _, scores = watch(method, source, x)
    torch.testing.assert_close(scores[0], p)
    mean = (4 * texts[top] + x[0]) / 5
    torch.testing.assert_close(state["centres"][top], mean / mean.norm())
    torch.testing.assert_close(state["prior"][top], (torch.eye(6)[top] + p) / 2)
    others = [k for k in range(6) if k != top]
    assert torch.equal(state["centres"][others], source.text.prototypes()[others])
    assert torch.equal(state["prior"][others], torch.eye(6, dtype=torch.float64)[others])
    still, _, _ = watch(Bca(centre_threshold=1.0, prior_threshold=1.0), source, x)
    assert torch.equal(still["centres"], source.text.prototypes())


def test_predictions_stay_probabilities(recorded, texts, unit, watch):
    method = Bca(prior_threshold=0.1, centre_count=2.0)
    state, _, scores = watch(method, recorded(texts), unit(50, 8, seed=14), 9)
    ones = torch.ones(50, dtype=torch.float64)
    torch.testing.assert_close(scores.sum(-1), ones)
    torch.testing.assert_close(state["prior"].sum(-1), ones[:6])
    assert not torch.equal(state["prior"], torch.eye(6, dtype=torch.float64))
