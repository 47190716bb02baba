# SPDX-License-Identifier: Apache-2.0
"""OnZeta: the balance of classes, the growing share of the proxies, and the length of the stream."""

import pytest
import torch
from tta_bench.adapters.onzeta import OnZeta

from tta_bench.errors import BadInputError
from tta_bench.method import Task
from tta_bench.testing import tiny_clip


def test_the_first_image_is_mixed_by_the_length_of_the_stream(recorded, texts, unit, watch):
    rows = unit(16, 8, seed=9)
    _, evidence, scores = watch(OnZeta(beta=0.8), recorded(texts), rows, 16)
    torch.testing.assert_close(evidence["weight"][[0, 15]], torch.tensor([0.25, 1.0], dtype=torch.float64))
    first = (rows[0] @ texts.T / 0.01).softmax(-1), (rows[0] @ texts.T / 0.04).softmax(-1)
    torch.testing.assert_close(scores[0], 0.8 * first[0] + 0.2 * first[1])


def test_a_class_that_is_never_predicted_gains(recorded, texts, watch):
    rows = texts[:1].expand(30, -1)
    state, evidence, scores = watch(OnZeta(), recorded(texts), rows, 30)
    assert state["rho"][0] == 0
    assert (state["rho"][1:] > 0).all()
    assert evidence["text"][-1, 0] < evidence["text"][0, 0]
    assert torch.isfinite(scores).all()


def test_without_balance_the_text_label_is_zero_shot(recorded, texts, unit, watch):
    rows = unit(12, 8, seed=10)
    _, evidence, _ = watch(OnZeta(alpha=0.0), recorded(texts), rows, 5)
    torch.testing.assert_close(evidence["text"], (rows @ texts.T / 0.01).softmax(-1))


def test_a_stream_of_unknown_length_is_refused():
    source = tiny_clip()
    with pytest.raises(BadInputError, match="length of the stream"):
        OnZeta().init(source, Task(5, source.class_names, 4))
