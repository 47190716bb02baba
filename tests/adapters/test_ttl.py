# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from tta_bench.adapters.ttl import Ttl

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.models.loading import load_model
from tta_bench.steps import check_compatible
from tta_bench.testing import tiny_clip, tiny_source, tiny_task

from .view_tuning import VIEWS, episode

SOME = {"views": VIEWS, "rank": 2}


def test_a_low_rank_update_acts_on_queries_and_values_of_the_last_blocks():
    method = Ttl(blocks=2, **SOME)
    source, state, inputs = episode(method)
    params = method.tune(source, state, inputs).state["params"]
    changed = method.updated(source, params)
    assert list(changed) == [f"blocks.{block}.attn.in_proj_weight" for block in (1, 2)]
    for name, weight in changed.items():
        q, k, v = (weight - source.params[name]).chunk(3)
        assert not k.any()
        for update in (q, v):
            assert torch.linalg.matrix_rank(update) == 2


def test_the_weights_of_the_layers_give_what_low_rank_maps_give():
    method = Ttl(blocks=1, **SOME)
    source, state, _ = episode(method)
    generator = torch.Generator().manual_seed(0)
    params = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in state["params"].items()}
    (name, weight), *_ = method.updated(source, params).items()
    h = torch.randn(4, source.params[name].shape[1], generator=generator, dtype=torch.float64)
    q, _, v = (h @ weight.T).chunk(3, dim=1)
    old_q, _, old_v = (h @ source.params[name].T).chunk(3, dim=1)
    scale = method.alpha / method.rank
    torch.testing.assert_close(q, old_q + scale * (h @ params[f"{name}.q.A"]) @ params[f"{name}.q.B"])
    torch.testing.assert_close(v, old_v + scale * (h @ params[f"{name}.v.A"]) @ params[f"{name}.v.B"])


def test_the_first_step_only_decays_the_first_factors():
    method = Ttl(**SOME)
    source, state, inputs = episode(method)
    params = method.tune(source, state, inputs).state["params"]
    for name, before in state["params"].items():
        if name.endswith(".A"):
            torch.testing.assert_close(params[name], before * (1 - method.lr * method.weight_decay))
        else:
            assert params[name].abs().max() > 0


def test_certain_views_weigh_more():
    method = Ttl(**SOME)
    source, state, inputs = episode(method)
    tuned = method.tune(source, state, inputs)
    with torch.no_grad():
        each = torch.distributions.Categorical(logits=source.logits(inputs.views[0])).entropy()
    torch.testing.assert_close(tuned.losses[0], ((0.4 - each).exp() * each).mean())
    assert tuned.chosen.shape == (1, VIEWS)


def test_models_without_attention_and_values_out_of_range_are_refused():
    with pytest.raises(IncompatibleError, match="attention"):
        check_compatible(Ttl(), load_model("pocket-clip", ("disk", "ring")))
    with pytest.raises(IncompatibleError, match="attention blocks"):
        Ttl().init(tiny_source("batch"), tiny_task(tiny_source("batch"), Ttl()))
    for values in ({"rank": 0}, {"blocks": 0}, {"alpha": float("inf")}):
        with pytest.raises(BadInputError):
            Ttl(**values)


def test_the_first_factors_depend_on_their_seed_alone():
    source = tiny_clip()
    first, same, other = (Ttl(lora_seed=seed, **SOME).tensors(source) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
