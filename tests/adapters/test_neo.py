# SPDX-License-Identifier: Apache-2.0
"""NEO: the centre of the features, and predictions around it."""

import pytest
import torch
from tta_bench.adapters.neo import Neo

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.testing import tiny_images


@pytest.mark.parametrize("variant", ["average", "continual"])
def test_it_keeps_its_promises(variant):
    assert not [result for result in check_method(Neo(variant=variant)) if result.bad]


def test_the_centre_is_the_mean_of_all_images_so_far(source, run):
    parts = [tiny_images(source, n, n) for n in (5, 2, 8)]
    states, scores = run(Neo(), source, parts)
    features = source.encode(torch.cat(parts))
    torch.testing.assert_close(states[-1]["centre"], features.mean(0))
    assert int(states[-1]["count"]) == 15
    torch.testing.assert_close(scores[-1], source.head(features[-8:] - features.mean(0)))


def test_a_continual_centre_follows_the_batches(source, batches, run):
    states, _ = run(Neo(variant="continual", alpha=0.25), source, batches)
    expected = torch.zeros(source.dim)
    for images in batches:
        expected = 0.75 * expected + 0.25 * source.encode(images).mean(0)
    torch.testing.assert_close(states[-1]["centre"], expected)


def test_the_first_image_alone_gives_the_bias_of_the_head(source, run):
    _, scores = run(Neo(), source, [tiny_images(source, 1, 0)])
    torch.testing.assert_close(scores[0][0], source.params["fc.bias"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("values", [{"variant": "mean"}, {"alpha": 1.5}, {"alpha": -0.1}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        Neo(**values)
