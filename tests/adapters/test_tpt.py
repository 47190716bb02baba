# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from tta_bench.adapters.tpt import Tpt

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.testing import tiny_source, tiny_task

from .view_tuning import VIEWS, adapted, by_hand, episode


@pytest.mark.parametrize("steps", [1, 3])
def test_a_step_is_that_of_an_imperative_loop(steps):
    params, logits, source, inputs = adapted(Tpt(views=VIEWS, selection=0.5, steps=steps))
    ctx, expected = by_hand(source, inputs, steps=steps)
    torch.testing.assert_close(params["ctx"], ctx, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


def test_the_mean_prediction_becomes_surer():
    method = Tpt(views=VIEWS, selection=0.5, lr=1e-4, steps=4)
    source, state, inputs = episode(method)
    losses = method.tune(source, state, inputs).losses
    assert (losses.diff() < 0).all()


def test_several_images_share_one_context_where_they_are_one_episode():
    method = Tpt(views=VIEWS, selection=0.5)
    source, state, inputs = episode(method, n=3)
    tuned = method.tune(source, state, inputs)
    alone = [
        method.tune(source, state, inputs._replace(view_features=inputs.view_features[i : i + 1]))
        for i in range(3)
    ]
    grads = torch.stack([one.grads["ctx"] for one in alone]).mean(0)
    torch.testing.assert_close(tuned.grads["ctx"], grads, rtol=1e-9, atol=1e-12)
    assert tuned.chosen.shape == (3, 4)


def test_one_view_is_kept_where_the_share_is_less_than_one():
    method = Tpt(views=2, selection=0.1)
    source, state, inputs = episode(method)
    assert method.tune(source, state, inputs).chosen.shape == (1, 1)


def test_values_out_of_range_and_models_without_texts_are_refused():
    for values in ({"views": 0}, {"steps": 0}, {"selection": 0.0}, {"augmentation": "blur"}):
        with pytest.raises(BadInputError):
            Tpt(**values)
    source = tiny_source()
    with pytest.raises(IncompatibleError, match="needs a text side"):
        Tpt().init(source, tiny_task(source, Tpt()))
