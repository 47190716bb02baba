# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch.nn import functional as F
from tta_bench.adapters.rlcf import Rlcf

from tta_bench.errors import BadInputError
from tta_bench.losses import reward_loss
from tta_bench.testing import tiny_clip

from .view_tuning import VIEWS, episode

SOME = {"views": VIEWS, "selection": 0.5}


def student(size=(3, 16, 16)):
    source = tiny_clip(dtype=torch.float64)
    source.reward = tiny_clip(dtype=torch.float64, seed=10, size=size)
    return source


def test_rewards_are_cosines_of_the_reward_model_less_their_mean():
    method = Rlcf(steps=1, **SOME)
    source, state, inputs = episode(method, source=student())
    tuned = method.tune(source, state, inputs)
    text = source.reward.text.prototypes(["a photo of a {}."])
    for row, view in enumerate(tuned.chosen[0].tolist()):
        feature = F.normalize(source.reward.encode(inputs.views[:, view]), dim=-1)[0]
        classes = tuned.extra["classes"][0, row]
        raw = torch.stack([(2.5 * feature @ text[c]).clamp(min=0) for c in classes.tolist()])
        torch.testing.assert_close(tuned.extra["rewards"][0, row], raw - raw.mean())


def test_the_reward_model_sees_the_chosen_views_once():
    method, calls = Rlcf(steps=3, **SOME), []
    source, state, inputs = episode(method, source=student())
    encode = source.reward.encode
    source.reward.encode = lambda x: calls.append(len(x)) or encode(x)
    method.tune(source, state, inputs)
    assert calls == [4]


def test_one_sample_has_no_baseline():
    method = Rlcf(samples=1, steps=1, **SOME)
    source, state, inputs = episode(method, source=student())
    rewards = method.tune(source, state, inputs).extra["rewards"]
    assert (rewards >= 0).all()
    assert (rewards > 0).any()


def test_views_are_resized_for_a_reward_model_of_another_input():
    method = Rlcf(steps=1, **SOME)
    source, state, inputs = episode(method, source=student((3, 24, 24)))
    assert torch.isfinite(method.tune(source, state, inputs).losses).all()


def test_a_positive_reward_raises_a_class_and_a_negative_one_lowers_it():
    logits = torch.zeros(1, 1, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(
        reward_loss(logits, torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[0, 2]]])), logits
    )
    assert grad[0, 0, 0] < 0 < grad[0, 0, 2]


def test_values_out_of_range_are_refused():
    for values in ({"samples": 0}, {"amplify": 0.0}):
        with pytest.raises(BadInputError):
            Rlcf(**values)
