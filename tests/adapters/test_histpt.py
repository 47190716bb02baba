# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from tta_bench.adapters.histpt import HisTpt

from tta_bench.errors import BadInputError

from .view_tuning import class_features, episode

SOME = {"memory": 3, "hard": 2, "keep": 0.9}


def one_of(inputs, index):
    return inputs._replace(
        features=inputs.features[index : index + 1], view_features=inputs.view_features[index : index + 1]
    )


def test_the_first_image_fills_all_banks():
    method = HisTpt(**SOME)
    source, state, inputs = episode(method)
    after = method.remember(source, state, inputs).state
    text = class_features(source, after["params"])
    for bank in ("local", "hard"):
        torch.testing.assert_close(after[bank], text.expand(3, -1, -1))
    torch.testing.assert_close(after["global"], text)
    assert after["filled"]


def test_later_images_push_the_oldest_out():
    method = HisTpt(**SOME)
    source, state, inputs = episode(method, n=4)
    local, hard, entropies, average = [], [], [], None
    for index in range(4):
        gone = method.remember(source, state, one_of(inputs, index))
        state, h = gone.state, gone.tuned.extra["entropy"]
        text = class_features(source, state["params"])
        if index == 0:
            local, hard, entropies, average = [text] * 3, [text] * 3, [h] * 3, text
            continue
        local, entropies = [text, *local[:2]], [h, *entropies[:2]]
        largest = sorted(range(3), key=lambda slot: -float(entropies[slot]))[:2]
        hard = [torch.stack([local[slot] for slot in largest]).mean(0), *hard[:2]]
        both = 0.5 * (torch.stack(local).mean(0) + torch.stack(hard).mean(0))
        average = 0.9 * average + 0.1 * both
    torch.testing.assert_close(state["local"], torch.stack(local))
    torch.testing.assert_close(state["hard"], torch.stack(hard))
    torch.testing.assert_close(state["entropies"], torch.stack(entropies))
    torch.testing.assert_close(state["global"], average)


def test_the_first_pseudo_label_is_the_models_own_prediction():
    method = HisTpt(**SOME)
    source, state, inputs = episode(method)
    extra = method.remember(source, state, inputs).tuned.extra
    with torch.no_grad():
        own = method.predict(source, state, inputs).softmax(-1)[0]
    torch.testing.assert_close(extra["pseudo"], own)
    torch.testing.assert_close(extra["weights"], torch.full_like(extra["weights"], 1 / 3))


def test_a_batch_is_its_images_one_after_the_other():
    method = HisTpt(**SOME)
    source, state, inputs = episode(method, n=3)
    whole = method.adapt(source, state, inputs)
    for index in range(3):
        gone = method.remember(source, state, one_of(inputs, index))
        state = gone.state
        torch.testing.assert_close(whole.logits[index : index + 1], gone.logits)


def test_a_prompt_that_is_reset_starts_from_the_first_context():
    method = HisTpt(reset_prompt=True, **SOME)
    source, state, inputs = episode(method, n=2)
    second = method.remember(
        source, method.remember(source, state, one_of(inputs, 0)).state, one_of(inputs, 1)
    )
    moved = second.state["params"]["ctx"] - source.text.context().ctx
    torch.testing.assert_close(
        moved,
        -method.lr * (second.tuned.grads["ctx"] + 1e-4 * source.text.context().ctx),
        rtol=1e-6,
        atol=1e-10,
    )


def test_values_out_of_range_are_refused():
    for values in ({"hard": 0}, {"hard": 33}, {"keep": 1.5}):
        with pytest.raises(BadInputError):
            HisTpt(**values)
