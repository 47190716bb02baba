# SPDX-License-Identifier: Apache-2.0
"""TDA: its scores from a loop over lists, and what batches and hyper-parameters change."""

import math

import pytest
import torch
from tta_bench.adapters.tda import Tda

from tta_bench.errors import BadInputError


def by_lists(text, rows, method):
    """TDA with a list of items for each class, one image after another."""
    positive, negative, scores = {}, {}, []
    for x in rows:
        logits = 100 * text @ x
        p = logits.softmax(-1)
        entropy, label = float(-(p * p.log()).sum()), int(logits.argmax())
        for cache, size, enters in (
            (positive, method.capacity, True),
            (negative, method.negative_capacity, 0.2 < entropy / math.log2(len(text)) < 0.5),
        ):
            if enters:
                cache[label] = sorted([*cache.get(label, []), (entropy, len(scores), x, p)])[:size]
        for label, items in positive.items():
            near = sum(torch.exp(-method.beta * (1 - x @ key)) for _, _, key, _ in items)
            logits = logits + method.alpha * near * torch.eye(len(text), dtype=text.dtype)[label]
        for items in negative.values():
            for _, _, key, map_ in items:
                logits = logits - 0.117 * torch.exp(-(1 - x @ key)) * ((map_ > 0.03) & (map_ < 1.0))
        scores.append(logits)
    return torch.stack(scores)


@pytest.mark.parametrize("size", [1, 4, 30])
def test_it_is_the_loop_over_lists_whatever_the_batch(recorded, texts, unit, watch, size):
    rows = unit(30, 8, seed=1) + 0.1 * texts[torch.arange(30) % 6]
    rows = rows / rows.norm(dim=-1, keepdim=True)
    text = texts / 10 + texts.mean(0)  # near to each other, so that some images are doubtful
    text = text / text.norm(dim=-1, keepdim=True)
    method = Tda(alpha=3.0, beta=2.0, capacity=2, negative_capacity=1)
    state, evidence, scores = watch(method, recorded(text), rows, size)
    assert int(state["negative"]["count"].sum()) > 0
    assert evidence["against"].any()
    torch.testing.assert_close(scores, by_lists(text, rows, method), rtol=0, atol=1e-10)


def test_an_image_enters_before_it_is_scored(recorded, texts, watch):
    _, evidence, scores = watch(Tda(alpha=2.0), recorded(texts), texts[:1])
    assert scores[0, 0] - evidence["logits"][0, 0] == pytest.approx(2.0)


@pytest.mark.parametrize(
    "values",
    [{"alpha": -1.0}, {"capacity": 0}, {"entropy_band": (0.5, 0.2)}, {"views": 0}, {"augmentation": "blur"},
     {"selection": 1.5}],
)  # fmt: skip
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError, match=next(iter(values))):
        Tda(**values)
