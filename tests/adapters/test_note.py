# SPDX-License-Identifier: Apache-2.0
"""NOTE: its normalisation by the formula, its reservoir against a plain one, and how batches do not matter."""

import pytest
import torch
from tta_bench.adapters._memory import Item, Pool, empty, remember_by_chance
from tta_bench.adapters.note import Note

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.method import Inputs
from tta_bench.norms import NormLayer, instance_aware, running
from tta_bench.steps import check_compatible, step
from tta_bench.testing import tiny_images, tiny_task

BUSY = Note(capacity=5, every=3, lr=0.05, momentum_stats=0.2)


@pytest.mark.parametrize("method", [Note(), BUSY], ids=["default", "busy"])
def test_it_keeps_its_promises(method):
    assert not [result for result in check_method(method) if result.bad]


def layer(channels, seed=0):
    g = torch.Generator().manual_seed(seed)
    mean, var, weight, bias = (torch.rand(channels, generator=g, dtype=torch.float64) + 0.1 for _ in range(4))
    return NormLayer("bn", mean, var, weight, bias, 1e-5, 0.1)


def shrink(value, limit):
    return value - limit if value > limit else value + limit if value < -limit else 0.0


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("k", [0.5, 4.0])
def test_the_rule_is_the_formula(training, k):
    x = 2 * torch.randn(3, 4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.3
    x[0] *= 3
    one = layer(4)
    y, stats = instance_aware(k, 0.2 if training else None)(x, one)
    for c in range(4):
        base = x[:, c].flatten()
        mean, var = (base.mean(), base.var()) if training else (one.mean[c], one.var[c])
        for n in range(3):
            inner = x[n, c].flatten()
            mu = mean + shrink(inner.mean() - mean, k * ((var + 1e-5) / 6).sqrt())
            v = max(var + shrink(inner.var() - var, k * (var + 1e-5) * (2 / 5) ** 0.5), torch.tensor(0.0))
            wanted = (x[n, c] - mu) / (v + 1e-5).sqrt() * one.weight[c] + one.bias[c]
            assert torch.allclose(y[n, c], wanted, atol=1e-10)
        if training:
            assert torch.isclose(stats.mean[c], 0.8 * one.mean[c] + 0.2 * base.mean())
            assert torch.isclose(stats.var[c], 0.8 * one.var[c] + 0.2 * base.var())
    assert training or stats is None


def test_layers_of_one_position_are_plain():
    x, one = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), layer(4)
    for values in (x, x[:, :, None, None]):
        assert torch.equal(instance_aware(4.0)(values, one)[0], running()(values, one)[0])


def test_with_a_wide_tolerance_it_is_the_source_model(source, batches, run):
    _, scores = run(Note(k=1e6), source, batches)
    assert torch.allclose(scores[0], source.logits(batches[0]), atol=1e-5)
    _, scores = run(Note(k=0.5), source, batches)
    assert not torch.allclose(scores[0], source.logits(batches[0]), atol=1e-3)


def test_how_the_stream_is_cut_into_batches_does_not_matter(source, run):
    images = tiny_images(source, 14, 0)
    chances = torch.rand(14, 3, generator=torch.Generator().manual_seed(2))
    ends, scores = [], []
    for sizes in ([14], [1] * 14, [4, 7, 3]):
        state, found = BUSY.init(source, tiny_task(source, BUSY)), []
        for part, draws in zip(images.split(sizes), chances.split(sizes), strict=True):
            stepped = step(BUSY, source, state, Inputs(part, draws=draws))
            state = stepped.state
            found.append(stepped.scores)
        ends.append(state)
        scores.append(torch.cat(found))
    assert int(ends[0]["optimizer"]["step"]) == 4
    for end, found in zip(ends[1:], scores[1:], strict=True):
        assert torch.allclose(found, scores[0], atol=1e-4)
        assert torch.equal(end["seen"], ends[0]["seen"])
        assert torch.equal(end["memory"]["labels"], ends[0]["memory"]["labels"])


def test_the_reservoir_is_that_of_plain_lists(source):
    generator = torch.Generator().manual_seed(5)
    labels = (torch.rand(60, generator=generator) ** 3 * 4).long().tolist()
    chances = torch.rand(60, 3, generator=generator).tolist()
    images = torch.arange(60).float().view(-1, 1, 1, 1).expand(-1, *source.image_shape)
    pool, plain, seen = Pool(empty(source, 6), images), [], [0] * 4
    for name, (label, (which, place, whether)) in enumerate(zip(labels, chances, strict=True)):
        seen[label] += 1
        remember_by_chance(pool, Item(6 + name, label), seen[label], [which, place, whether])
        held = [sum(c == other for _, c in plain) for other in range(4)]
        goes = None
        if len(plain) == 6:
            most = [c for c in range(4) if held[c] == max(held)]
            goes = label if label in most else most[int(which * len(most))]
        if goes is not None:
            if goes == label and whether > held[label] / seen[label]:
                continue
            own = [item for item in plain if item[1] == goes]
            plain.remove(own[int(place * len(own))])
        plain.append((name, label))
        assert [(int(pool.images[i.at, 0, 0, 0]), i.label) for i in pool.items] == plain
    kept = [sum(c == other for _, c in plain) for other in range(4)]
    assert max(kept) - min(kept) <= 1 < max(seen) - min(seen)


def test_models_without_batchnorm_and_bad_values_are_refused(grouped):
    with pytest.raises(IncompatibleError):
        check_compatible(Note(), grouped)
    for values in ({"capacity": 0}, {"every": 0}, {"k": -1.0}, {"momentum_stats": 2.0}):
        with pytest.raises(BadInputError):
            Note(**values)
    assert all(Note(**values) for values in Note.presets.values())
