# SPDX-License-Identifier: Apache-2.0
"""DMN: prototypes from a plain loop over the memory, probabilities, and the weak variant."""

import pytest
import torch
from tta_bench.adapters.dmn import Dmn

from tta_bench.hyperparameters import create_method


def by_loop(text, rows, method):
    memory, scores = {label: [] for label in range(len(text))}, []
    for x in rows:
        p = (100 * text @ x).softmax(-1)
        label, entropy = int(p.argmax()), float(-(p * (p + 1e-8).log()).sum())
        slots = memory[label]
        if len(slots) < method.memory:
            slots.append((entropy, x))
        elif entropy < max(one for one, _ in slots):
            slots[[one for one, _ in slots].index(max(one for one, _ in slots))] = (entropy, x)
        read = []
        for k, own in enumerate(text):
            held = torch.stack([*(key for _, key in memory[k]), own])
            mixed = torch.exp(-method.beta * (1 - held @ x)) @ held
            read.append(100 * x @ mixed / mixed.norm())
        scores.append((p + method.alpha * torch.stack(read).softmax(-1)) / (1 + method.alpha))
    return torch.stack(scores)


@pytest.mark.parametrize("size", [1, 24])
def test_it_is_the_plain_loop_whatever_the_batch(recorded, texts, unit, watch, size):
    rows, method = unit(24, 8, seed=4), Dmn(views=1, memory=2, alpha=0.7)
    _, _, scores = watch(method, recorded(texts), rows, size)
    torch.testing.assert_close(scores, by_loop(texts, rows, method), rtol=0, atol=1e-10)
    torch.testing.assert_close(scores.sum(-1), torch.ones(24, dtype=torch.float64))


def test_the_weak_variant_sees_the_image_alone():
    weak = create_method("dmn", preset="weak")
    assert weak.view_policy() is None
    assert weak.always
    assert create_method("dmn").view_policy().count == 32
