# SPDX-License-Identifier: Apache-2.0
"""Panda: composites patch by patch, draws that never take the base, and batches of one."""

import pytest
import torch
from tta_bench.adapters.panda import Panda, shuffled

from tta_bench.errors import BadInputError
from tta_bench.method import Inputs
from tta_bench.testing import tiny_clip, tiny_images, tiny_task


@pytest.mark.parametrize(("height", "width", "side"), [(8, 8, 4), (9, 7, 2), (6, 6, 4)])
def test_a_composite_takes_each_patch_from_its_source(height, width, side):
    images = torch.rand(5, 3, height, width, generator=torch.Generator().manual_seed(0))
    rows, columns = height // side, width // side
    base = torch.tensor([0, 3])
    patches = torch.randint(5, (2, rows * columns), generator=torch.Generator().manual_seed(1))
    before = images.clone()
    made = shuffled(images, base, patches, side)
    for m in range(2):
        expected = images[base[m]].clone()
        for place in range(rows * columns):
            top, left = place // columns * side, place % columns * side
            area = (slice(None), slice(top, top + side), slice(left, left + side))
            expected[area] = images[patches[m, place]][area]
        assert torch.equal(made[m], expected)
    assert torch.equal(images, before)


@pytest.mark.parametrize(("base", "sets"), [("tent", 2), ("eta", 1), ("bat", 1)])
def test_no_patch_is_drawn_from_the_base(base, sets):
    source, method = tiny_clip(), Panda(base=base)
    drawn = method.draw(source, 25, torch.Generator().manual_seed(0))
    assert drawn["base"].shape == (sets, 3)
    assert drawn["patches"].shape == (sets, 3, 64)  # patches of 2 on 16 pixels
    assert (drawn["patches"] != drawn["base"].unsqueeze(-1)).all()
    assert set(drawn["patches"].flatten().tolist()) == set(range(25))


def test_one_image_is_not_shifted():
    source, method = tiny_clip(), Panda(lr=0.0, scale=0.0, beta=0.9)
    images = tiny_images(source, 1, 0)
    assert method.draw(source, 1, torch.Generator()) is None
    state = method.init(source, tiny_task(source, method))
    torch.testing.assert_close(method.adapt(source, state, Inputs(images)).logits, source.logits(images))


def test_eta_takes_no_step_where_no_image_is_reliable():
    source, method = tiny_clip(), Panda(base="eta", margin=0.0, lr=0.1)
    images = tiny_images(source, 4, 0)
    state = method.init(source, tiny_task(source, method))
    after = method.adapt(source, state, Inputs(images, draws=method.draw(source, 4, torch.Generator()))).state
    assert all(torch.equal(after["params"][name], p) for name, p in state["params"].items())
    assert int(after["optimizer"]["step"]) == 0


def test_a_patch_larger_than_the_image_is_refused():
    with pytest.raises(BadInputError, match="patch must be at most"):
        Panda(patch=32).draw(tiny_clip(), 4, torch.Generator())
