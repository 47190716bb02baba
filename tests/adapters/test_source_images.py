# SPDX-License-Identifier: Apache-2.0
"""Statistics of source images: which images are read, and their moments against plain tensors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tta_bench.adapters._source_images import averaged_moments, pooled_moments, source_batches
from tta_bench.adapters.eata import Eata

from tta_bench import registry
from tta_bench.testing import tiny_source, tiny_task

READERS = ("eata", "rmt", "santa", "foa", "actmad", "petta", "come-eata")


@given(st.lists(st.integers(2, 6), min_size=1, max_size=5), st.floats(-1e3, 1e3))
@settings(max_examples=25, deadline=None)
def test_moments_are_those_of_the_images(sizes, offset):
    x = offset + torch.randn(sum(sizes), 3, 2, generator=torch.Generator().manual_seed(len(sizes)))
    parts = torch.split(x, sizes)
    pooled = pooled_moments({"x": part} for part in parts)
    torch.testing.assert_close(pooled.mean["x"], x.double().mean(0).float())
    torch.testing.assert_close(pooled.var["x"], x.double().var(0).float(), rtol=1e-4, atol=1e-6)
    averaged = averaged_moments({"x": part} for part in parts)
    torch.testing.assert_close(averaged.mean["x"], torch.stack([part.mean(0) for part in parts]).mean(0))
    torch.testing.assert_close(averaged.var["x"], torch.stack([part.var(0) for part in parts]).mean(0))


@pytest.mark.parametrize(("samples", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (100, [4] * 6), (1, [1])])
def test_images_are_read_once_and_no_more_than_asked_for(samples, sizes):
    source = tiny_source("batch")
    task = tiny_task(source, Eata(), batch_size=4)
    found = list(source_batches(task, samples))
    assert [len(images) for images, _ in found] == sizes
    assert [len(labels) for _, labels in found] == sizes
    expected = task.source.batch(0, sum(sizes))[0]
    assert torch.equal(torch.cat([images for images, _ in found]), expected)


@pytest.mark.parametrize("name", READERS)
def test_methods_that_read_source_images_say_what_for(name):
    method = registry.load("methods", name)()
    source = tiny_source("layer" if name == "foa" else "batch")
    assert f"{method.samples} source images" in method.notes(source)["source_statistics"]
