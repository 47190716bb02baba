# SPDX-License-Identifier: Apache-2.0
"""CoTTA: the teacher's views, its average, and the restoration of random entries."""

import pytest
import torch
from tta_bench.adapters import cotta as module
from tta_bench.adapters.cotta import Cotta

from tta_bench.augment import augment
from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.norms import batch
from tta_bench.testing import tiny_images, tiny_source
from tta_bench.testing.inputs import tiny_draws


@pytest.mark.parametrize(
    "values", [pytest.param({}, marks=pytest.mark.slow), {"confidence": 1.1, "views": 2, "restore": 0.5}]
)
def test_it_keeps_its_promises(values):
    assert not [result for result in check_method(Cotta(**values)) if result.bad]


@pytest.mark.parametrize("loss", ["teacher", "symmetric"])
def test_the_update_is_that_of_a_plain_loop(loss, run):
    source = tiny_source("batch", dtype=torch.float64)
    method = Cotta(loss=loss, confidence=1.1, views=3, keep=0.8, restore=0.3, lr=0.01)
    batches = [tiny_images(source, 6, seed) for seed in range(3)]
    states, scores = run(method, source, batches)
    leaves = {name: p.clone().requires_grad_() for name, p in source.weights().items()}
    teacher = {name: p.clone() for name, p in source.weights().items()}
    optimizer = torch.optim.Adam(list(leaves.values()), 0.01)
    for index, images in enumerate(batches):
        draws = tiny_draws(source, 6, method, index, per_image=False)
        rows = [{name: value[0, k : k + 1] for name, value in draws["views"].items()} for k in range(3)]
        taught = sum(source.logits(augment(images, row), teacher, norm=batch()) for row in rows) / 3
        z = source.logits(images, leaves, norm=batch())
        forth = -(taught.softmax(1) * z.log_softmax(1)).sum(1).mean()
        back = -(z.softmax(1) * taught.log_softmax(1)).sum(1).mean()
        optimizer.zero_grad()
        (forth if loss == "teacher" else (forth + back) / 2).backward()
        optimizer.step()
        start = 0
        with torch.no_grad():
            for name, leaf in leaves.items():
                teacher[name] = 0.8 * teacher[name] + 0.2 * leaf
                mask = draws["restored"][0, start : start + leaf.numel()].view_as(leaf)
                leaf[mask] = source.params[name][mask]
                start += leaf.numel()
        assert torch.allclose(scores[index], taught, atol=1e-9)
    for name, leaf in leaves.items():
        assert torch.allclose(states[-1]["params"][name], leaf.detach(), atol=1e-8)
        assert torch.allclose(states[-1]["teacher"][name], teacher[name], atol=1e-8)


def test_views_are_made_only_where_the_source_model_is_unsure(source, batches, run, monkeypatch):
    made = []
    monkeypatch.setattr(module, "augment", lambda images, draws: made.append(1) or images)
    sure = source.logits(batches[0], norm=batch()).softmax(1).amax(1).mean().item()
    run(Cotta(confidence=sure - 1e-4, views=5), source, batches[:1])
    assert not made
    run(Cotta(confidence=sure + 1e-4, views=5), source, batches[:1])
    assert len(made) == 5


def test_certain_restoration_brings_the_source_model_back(source, batches, run):
    states, _ = run(Cotta(confidence=1.1, views=2, restore=1.0, lr=0.01), source, batches)
    assert all(torch.equal(p, source.params[name]) for name, p in states[-1]["params"].items())
    assert any(not torch.equal(p, source.params[name]) for name, p in states[-1]["teacher"].items())


def test_entries_are_restored_at_the_given_rate(source):
    method = Cotta(restore=0.25)
    draws = method.draw(source, 4, torch.Generator().manual_seed(0))
    count = sum(source.params[name].numel() for name in method.adapted_tensors(source))
    assert draws["restored"].shape == (1, count)
    assert draws["restored"].float().mean().item() == pytest.approx(0.25, abs=0.03)
    again = method.draw(source, 4, torch.Generator().manual_seed(1))
    assert not torch.equal(draws["restored"], again["restored"])


def test_values_out_of_range_are_refused():
    for values in ({"loss": "other"}, {"views": 0}, {"keep": 2.0}, {"restore": -0.5}):
        with pytest.raises(BadInputError):
            Cotta(**values)
    assert all(Cotta(**values) for values in Cotta.presets.values())
