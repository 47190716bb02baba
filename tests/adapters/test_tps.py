# SPDX-License-Identifier: Apache-2.0
import torch
from torch.nn import functional as F
from tta_bench.adapters.tps import Tps

from tta_bench.losses import marginal_entropy

from .view_tuning import VIEWS, adapted, episode


def test_a_step_is_that_of_an_imperative_loop():
    params, logits, source, inputs = adapted(Tps(views=VIEWS, selection=0.5, steps=2))
    base, views = source.head_weight(), F.normalize(inputs.view_features[0], dim=-1)
    shift = torch.zeros_like(base, requires_grad=True)
    optimizer = torch.optim.AdamW([shift], lr=5e-3, weight_decay=0.01)
    entropies = torch.distributions.Categorical(logits=source.text.scale * views @ base.T).entropy()
    chosen = entropies.argsort(stable=True)[:4]
    for _ in range(2):
        optimizer.zero_grad()
        text = F.normalize(base + shift, dim=-1)
        marginal_entropy(source.text.scale * views[chosen] @ text.T).backward()
        optimizer.step()
    text = F.normalize(base + shift.detach(), dim=-1)
    torch.testing.assert_close(params["shift"], shift.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(logits, source.text.scale * views[:1] @ text.T, rtol=1e-10, atol=1e-10)


def test_views_may_be_chosen_anew_in_each_step():
    fixed, anew = (Tps(views=32, selection=0.25, steps=5, lr=0.05, reselect=again) for again in (False, True))
    source, state, inputs = episode(fixed, seed=1)
    first = fixed.tune(source, state, inputs)
    assert torch.equal(first.chosen, Tps(views=32, selection=0.25).tune(source, state, inputs).chosen)
    assert not torch.equal(anew.tune(source, state, inputs).chosen, first.chosen)
