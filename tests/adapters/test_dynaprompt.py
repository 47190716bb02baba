# SPDX-License-Identifier: Apache-2.0
import torch
from tta_bench.adapters.dynaprompt import DynaPrompt, _confused

from .view_tuning import VIEWS, episode

SOME = {"views": VIEWS, "selection": 0.5, "prompts_kept": 3}


def test_unused_prompts_come_first_and_a_used_up_bank_starts_anew():
    method = DynaPrompt(**SOME)
    source, state, inputs = episode(method, n=4)
    fronts, uses = [], []
    for index in range(4):
        one = inputs._replace(
            features=inputs.features[index : index + 1], view_features=inputs.view_features[index : index + 1]
        )
        fronts.append(int(state["order"][0]))
        state = method.hand_on(source, state, one).state
        uses.append(state["use"].tolist())
        assert state["order"].tolist()[-1] == fronts[-1]
        assert sorted(state["order"].tolist()) == [0, 1, 2]
    assert fronts[0] == 0
    assert uses[0] == [1, 0, 0]


def test_a_batch_is_its_images_one_after_the_other():
    method = DynaPrompt(**SOME)
    source, state, inputs = episode(method, n=3)
    whole = method.adapt(source, state, inputs)
    for index in range(3):
        one = inputs._replace(
            features=inputs.features[index : index + 1], view_features=inputs.view_features[index : index + 1]
        )
        handed = method.hand_on(source, state, one)
        state = handed.state
        torch.testing.assert_close(whole.logits[index : index + 1], handed.logits)
    torch.testing.assert_close(whole.state["params"]["offsets"], state["params"]["offsets"])


def test_prompts_surer_and_better_at_telling_views_apart_than_the_front_are_chosen():
    logits = torch.zeros(4, 3, 5)
    logits[0, :, 0] = torch.tensor([4.0, 4.0, 4.0])  # sure, but no difference between views
    logits[1, :, 0] = torch.tensor([6.0, 3.0, 3.0])  # sure, and different
    logits[2, :, 0] = torch.tensor([2.0, 2.5, 2.5])  # the front
    logits[3, :, 0] = torch.tensor([1.0, 0.0, 0.0])  # different, but unsure
    found = DynaPrompt(**SOME)._chosen(logits, torch.tensor([2, 0, 1, 3]))
    assert found.tolist() == [0, 1, 2]
    logits[0, 1:, 0] = 6.0
    assert DynaPrompt(**SOME)._chosen(logits, torch.tensor([2, 0, 1, 3])).tolist() == [1, 2]


def test_the_published_code_takes_prompts_for_positions():
    certain = torch.tensor([0.1, 0.4, 0.3, 0.2])  # by descending entropy: 1, 2, 3, 0
    apart = torch.tensor([0.9, 0.1, 0.2, 0.8])  # by descending difference: 0, 3, 2, 1
    # After the front, 3, in entropy comes prompt 0; it is among the first two in difference; position 0 is prompt 1.
    assert _confused(certain, apart, 3).tolist() == [1, 3]


def test_moments_are_kept_where_it_is_asked_for():
    for keep in (False, True):
        method = DynaPrompt(keep_moments=keep, **SOME)
        source, state, inputs = episode(method, n=3)
        assert int(method.adapt(source, state, inputs).state["optimizer"]["step"]) == (3 if keep else 1)
