# SPDX-License-Identifier: Apache-2.0
"""DeYO: what destroys an object's shape, and which samples count."""

import pytest
import torch
from tta_bench.adapters.deyo import Deyo

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.norms import batch
from tta_bench.testing import tiny_images, tiny_source
from tta_bench.testing.inputs import tiny_draws


def test_it_keeps_its_promises():
    assert not [result for result in check_method(Deyo()) if result.bad]


def destroyed(method, images, source):
    return method._destroyed(images, tiny_draws(source, len(images), method, 0, per_image=False))


@pytest.mark.parametrize("kind", ["patch", "pixel"])
def test_permutations_keep_every_pixel(source, kind):
    images = tiny_images(source, 5, 0)
    copies = destroyed(Deyo(destroy=kind), images, source)
    assert not torch.equal(copies, images)
    assert torch.equal(copies.flatten(2).sort(-1).values, images.flatten(2).sort(-1).values)


def test_patches_move_as_a_whole_and_differently_for_each_image():
    images = (
        torch.arange(16.0).view(1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3).repeat(3, 3, 1, 1)
    )
    source = tiny_source("batch", size=(3, 16, 16))
    draws = Deyo().draw(source, 3, torch.Generator().manual_seed(0))
    copies = Deyo()._destroyed(images, draws)
    assert torch.equal(copies[:, 0, ::4, ::4].flatten(1), draws.float())
    assert torch.equal(
        copies, copies[:, :1, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3).repeat(1, 3, 1, 1)
    )
    assert not torch.equal(draws[0], draws[1])


def test_the_middle_is_painted_with_the_mean_colour(source):
    images = tiny_images(source, 2, 0)
    copies = Deyo(destroy="occ")._destroyed(images, None)
    assert torch.allclose(copies[..., 4:12, 4:12], images.mean((-2, -1), keepdim=True).expand(-1, -1, 8, 8))
    outside = torch.ones(16, 16, dtype=torch.bool)
    outside[4:12, 4:12] = False
    assert torch.equal(copies[..., outside], images[..., outside])


def test_sizes_that_patches_do_not_divide_are_kept():
    images = torch.linspace(0, 1, 18 * 21).view(1, 1, 18, 21).expand(2, 3, -1, -1)
    draws = torch.arange(16).expand(2, -1)
    copies = Deyo()._destroyed(images, draws)
    assert copies.shape == images.shape
    assert (copies - images).abs().max() < 0.1


@pytest.mark.parametrize("values", [{"margin": 0.0}, {"plpd": 2.0}])
def test_nothing_changes_where_no_sample_is_kept(source, batches, run, same, values):
    states, scores = run(Deyo(**values), source, batches)
    assert same(states[0], states[-1])
    assert torch.equal(scores[2], source.logits(batches[2], norm=batch()))


def test_samples_that_do_not_lose_confidence_have_no_say(source, run, same):
    flat = torch.full((4, 3, 16, 16), 0.4)
    states, _ = run(Deyo(margin=1.0, plpd=0.0), source, [flat])
    assert same(states[0], states[1]), "a permutation leaves an even image as it is, so its PLPD is 0"


def test_a_batch_of_one_is_adapted_to(grouped, run, same):
    states, _ = run(Deyo(margin=1.0, plpd=-1.0), grouped, [tiny_images(grouped, 1, 0)])
    assert not same(states[0], states[1])


@pytest.mark.parametrize("values", [{"destroy": "blur"}, {"patches": 0}, {"margin": -1.0}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        Deyo(**values)
