# SPDX-License-Identifier: Apache-2.0
"""DPE: the step of the residuals against torch's AdamW, and when the text prototypes move."""

import math

import pytest
import torch
from torch.nn import functional as F
from tta_bench.adapters.dpe import Dpe


def by_autograd(text, x, method):
    """The logits of the first image of a stream, with torch's optimiser and cross-entropy."""
    label = int((100 * text @ x).argmax())
    residuals = [
        torch.zeros_like(text).requires_grad_(),
        torch.zeros(1, 8, dtype=text.dtype).requires_grad_(),
    ]
    optimizer = torch.optim.AdamW(residuals, lr=method.lr, eps=1e-3, weight_decay=0.1)

    def logits():
        t, p = F.normalize(text + residuals[0], dim=-1), F.normalize(x[None] + residuals[1], dim=-1)
        near = method.alpha * torch.exp(-method.beta * (1 - p @ x))
        return (100 * t @ x).index_add(0, torch.tensor([label]), near), t, p

    z, t, p = logits()
    contrast = F.cross_entropy(p @ t[[label]].T / method.temperature, torch.zeros(1, dtype=torch.int64))
    (-(z.softmax(-1) * z.log_softmax(-1)).sum() + method.align * contrast).backward()
    optimizer.step()
    return logits()[0].detach()


def test_the_first_step_is_adamw(recorded, texts, unit, watch):
    x, method = unit(1, 8, seed=28), Dpe(views=1, lr=0.01)
    _, _, scores = watch(method, recorded(texts), x)
    torch.testing.assert_close(scores[0], by_autograd(texts, x[0], method), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("threshold", "moves"), [(0.0, 0), (10.0, 5)])
def test_sure_images_move_the_running_mean_of_the_texts(recorded, texts, unit, watch, threshold, moves):
    state, _, scores = watch(Dpe(views=1, threshold=threshold), recorded(texts), unit(5, 8, seed=29), 5)
    assert int(state["moves"]) == moves
    assert torch.allclose(state["text"], texts) == (moves == 0)
    assert scores.shape == (5, 6)


def test_the_bank_holds_entropies_in_bits_of_the_classes(recorded, texts, unit, watch):
    x = unit(1, 8, seed=30)
    state, _, _ = watch(Dpe(views=1), recorded(texts, scale=5.0), x)
    p = (5 * x[0] @ texts.T).softmax(-1)
    expected = float(-(p * p.log()).sum()) / math.log2(6)
    assert state["bank"]["entropy"].max().item() == pytest.approx(expected)
