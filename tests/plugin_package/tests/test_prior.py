# SPDX-License-Identifier: Apache-2.0
"""The correction is the one that the docstring says."""

import torch
from tta_bench_example.prior import Prior

from tta_bench.method import Inputs
from tta_bench.testing import tiny_images, tiny_source, tiny_task


def test_two_steps_are_the_formula():
    method, source = Prior(momentum=0.25, strength=0.5), tiny_source("group", dtype=torch.float64)
    state = method.init(source, tiny_task(source, method))
    shares = [0.2] * 5
    for seed in range(2):
        images = tiny_images(source, 6, seed)
        probabilities = torch.softmax(source.logits(images), 1)
        shares = [0.75 * old + 0.25 * float(p) for old, p in zip(shares, probabilities.mean(0), strict=True)]
        state = method.adapt(source, state, Inputs(images)).state
    expected = source.logits(images) - 0.5 * torch.tensor(shares, dtype=torch.float64).log()
    assert torch.allclose(method.predict(source, state, Inputs(images)), expected, rtol=1e-12)
