# SPDX-License-Identifier: Apache-2.0
"""PL: which predictions become labels, and which tensors learn from them."""

import pytest
import torch
from tta_bench.adapters.pl import Pl

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.testing import tiny_clip, tiny_images, tiny_task


@pytest.mark.parametrize("method", [Pl(), Pl(trains="classifier")], ids=["all", "classifier"])
def test_it_keeps_its_promises(method):
    if method.trains == "all":
        assert not [result for result in check_method(method) if result.bad]
    source = tiny_clip()
    if method.trains == "classifier":
        with pytest.raises(IncompatibleError):
            method.init(source, tiny_task(source, method))


def test_the_classifier_alone_moves_where_it_is_asked_for(source, batches, run):
    states, _ = run(Pl(lr=0.01, beta=0.0, trains="classifier"), source, batches)
    assert set(states[-1]["params"]) == {"fc.weight", "fc.bias"}
    assert not torch.equal(states[-1]["params"]["fc.bias"], source.params["fc.bias"])


def test_only_confident_samples_have_a_say(source, run):
    images = tiny_images(source, 8, 0)
    confidence = source.logits(images).softmax(-1).amax(-1).sort().values
    beta = float(confidence[5:7].mean())
    kept = source.logits(images).softmax(-1).amax(-1) > beta
    whole, _ = run(Pl(lr=0.01, beta=beta), source, [images])
    part, _ = run(Pl(lr=0.01, beta=0.0), source, [images[kept]])
    assert kept.sum() == 2
    for name, p in part[1]["params"].items():
        assert torch.allclose(whole[1]["params"][name], p, atol=1e-5)


@pytest.mark.parametrize("quirk", [False, True])
def test_moments_move_on_without_a_confident_sample_only_as_a_quirk(source, run, same, quirk):
    images = tiny_images(source, 8, 0)
    method = Pl(lr=0.01, beta=0.3, reference_quirk=quirk)
    states, _ = run(method, source, [images, torch.full_like(images, torch.nan)])
    assert not same(states[0], states[1])
    assert same(states[1], states[2]) != quirk


@pytest.mark.parametrize("values", [{"trains": "head"}, {"steps": 0}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        Pl(**values)
