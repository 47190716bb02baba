# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from tta_bench.adapters.a_tpt import ATpt

from tta_bench.errors import BadInputError

from .view_tuning import VIEWS, adapted, by_hand, class_features

SOME = {"views": VIEWS, "selection": 0.5}


def nearest(text):
    """Mean angle to the nearest other class, one class after the other."""
    angles = []
    for c in range(len(text)):
        others = [text[c] @ text[d] for d in range(len(text)) if d != c]
        angles.append(torch.stack(others).max().arccos())
    return torch.stack(angles).mean()


def test_a_step_is_that_of_an_imperative_loop():
    params, logits, source, inputs = adapted(ATpt(**SOME))
    ctx, expected = by_hand(source, inputs, lambda text: -80.0 * nearest(text))
    torch.testing.assert_close(params["ctx"], ctx, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(logits, expected, rtol=1e-8, atol=1e-8)


def test_the_angle_widens_and_with_a_negative_weight_shrinks():
    angles = []
    for weight in (-80.0, 0.0, 80.0):
        params, _, source, _ = adapted(ATpt(weight=weight, **SOME))
        angles.append(float(nearest(class_features(source, params))))
    assert angles[0] < angles[1] < angles[2]


def test_classes_nearer_than_the_clamp_have_no_gradient():
    plain, *_ = adapted(ATpt(weight=0.0, **SOME))
    clamped, *_ = adapted(ATpt(clamp=1e-6, **SOME))
    torch.testing.assert_close(plain["ctx"], clamped["ctx"])


def test_a_clamp_out_of_range_is_refused():
    with pytest.raises(BadInputError, match="clamp"):
        ATpt(clamp=1.0)
