# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from tta_bench.adapters.c_tpt import CTpt

from .view_tuning import VIEWS, adapted, by_hand, class_features

SOME = {"views": VIEWS, "selection": 0.5}


def spread(text):
    return (text - text.mean(0)).pow(2).sum(1).sqrt().mean()


@pytest.mark.parametrize("weight", [0.0, 50.0])
def test_a_step_is_that_of_an_imperative_loop(weight):
    params, logits, source, inputs = adapted(CTpt(weight=weight, **SOME))
    ctx, expected = by_hand(source, inputs, lambda text: -weight * spread(text))
    torch.testing.assert_close(params["ctx"], ctx, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


def test_classes_disperse_more_with_the_term():
    plain, *_, source, _ = adapted(CTpt(weight=0.0, **SOME))
    more, *_ = adapted(CTpt(weight=50.0, **SOME))
    assert spread(class_features(source, more)) > spread(class_features(source, plain))


def test_the_term_may_have_a_step_of_its_own():
    joint, *_ = adapted(CTpt(**SOME))
    params, *_ = adapted(CTpt(two_step=True, **SOME))
    assert not torch.allclose(params["ctx"], joint["ctx"])
