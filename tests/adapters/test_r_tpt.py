# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from tta_bench.adapters.r_tpt import RTpt

from tta_bench.errors import BadInputError

from .view_tuning import VIEWS, episode


def test_weights_follow_the_nearest_other_views_one_by_one():
    features = torch.randn(2, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features[0, 3] = 2 * features[0, 1]  # a true duplicate is a neighbour
    found = RTpt(neighbours=3).weights(features)
    unit = features / features.norm(dim=-1, keepdim=True)
    for n in range(2):
        near = []
        for v in range(7):
            cosines = sorted((float(unit[n, v] @ unit[n, u]) for u in range(7) if u != v), reverse=True)
            near.append(sum(cosines[:3]) / 3 / 0.01)
        torch.testing.assert_close(found[n], torch.tensor(near, dtype=torch.float64).softmax(0))


def test_few_views_have_fewer_neighbours_and_one_has_all_the_weight():
    assert RTpt().weights(torch.randn(1, 2, 4)).tolist() == [[0.5, 0.5]]
    assert RTpt().weights(torch.randn(3, 1, 4)).tolist() == [[1.0]] * 3


def test_each_view_becomes_surer_by_itself():
    method = RTpt(views=VIEWS, selection=0.5, steps=4, lr=1e-4)
    source, state, inputs = episode(method)
    tuned = method.tune(source, state, inputs)
    assert (tuned.losses.diff() < 0).all()
    with torch.no_grad():
        logits = method.look(source, state, state["params"], inputs, None).logits[0]
        each = torch.distributions.Categorical(logits=logits[tuned.chosen[0]]).entropy()
    torch.testing.assert_close(tuned.losses[0], each.mean())


def test_values_out_of_range_are_refused():
    for values in ({"neighbours": 0}, {"temperature": 0.0}):
        with pytest.raises(BadInputError):
            RTpt(**values)
