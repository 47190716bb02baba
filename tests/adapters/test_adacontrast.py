# SPDX-License-Identifier: Apache-2.0
"""AdaContrast: labels from neighbours, the queue and its mask, the bank, and one update by hand."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, normalize
from tta_bench.adapters.adacontrast import AdaContrast

from tta_bench.augment import augment
from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.norms import track
from tta_bench.testing import tiny_images, tiny_source, tiny_task
from tta_bench.testing.inputs import tiny_draws

BUSY = AdaContrast(queue=6, patience=4, neighbours=3, lr=0.02, keep=0.8)


@pytest.mark.parametrize(
    "method", [AdaContrast(queue=64), pytest.param(BUSY, marks=pytest.mark.slow)], ids=["default", "busy"]
)
def test_it_keeps_its_promises(method):
    assert not [result for result in check_method(method) if result.bad]


@pytest.mark.parametrize("quirk", [False, True])
def test_the_update_is_that_of_a_plain_loop(quirk, run):
    source = tiny_source("batch", dtype=torch.float64)
    method = AdaContrast(queue=7, patience=5, neighbours=2, lr=0.05, keep=0.8, reference_quirk=quirk)
    batches = [tiny_images(source, 5, seed) for seed in range(4)]
    states, scores = run(method, source, batches)
    leaves = {name: p.clone().requires_grad_() for name, p in source.weights().items()}
    optimizer = torch.optim.SGD(list(leaves.values()), 0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    momentum, stats, bank = {n: p.clone() for n, p in source.weights().items()}, {}, [None] * 7
    keys, labels = states[0]["queue"]["keys"].clone(), states[0]["queue"]["labels"].clone()
    slot = 0
    for index, images in enumerate(batches):
        draws = tiny_draws(source, 5, method, index, per_image=False)
        weak, query, key = (augment(images, draws[name]) for name in ("weak", "query", "key"))
        with torch.no_grad():
            plain = source.forward(weak, {**leaves, **stats}, norm=track())
        stats = {**stats, **plain.stats}
        own = plain.logits.argmax(1)
        if index:
            held = [entry for entry in bank if entry is not None]
            for n, feature in enumerate(plain.features):
                order = sorted(held, key=lambda entry: -cosine_similarity(feature, entry[0], dim=0).item())
                own[n] = (order[0][1] + order[1][1]).argmax()
        averaged = {n: 0.8 * p + 0.2 * leaves[n].detach() for n, p in momentum.items()}
        momentum = averaged
        new = normalize(source.encode(key, momentum, norm=track()), dim=1)
        old_keys, old_labels = keys.clone(), labels.clone()
        for n in range(5):
            keys[(slot + n) % 7], labels[(slot + n) % 7] = new[n], own[n]
        made = source.forward(query, {**leaves, **stats}, norm=track())
        q = normalize(made.features, dim=1)
        picked = 0
        for n in range(5):
            mask = (labels if quirk else old_labels) != own[n]
            row = torch.cat([(q[n] @ new[n])[None], (old_keys @ q[n])[mask]]) / 0.07
            picked = picked - row.log_softmax(0)[0] / 5
        mean = made.logits.softmax(1).mean(0)
        optimizer.zero_grad()
        (cross_entropy(made.logits, own) + picked + (mean * (mean + 1e-8).log()).sum()).backward()
        optimizer.step()
        stats = {**stats, **{n: s.detach() for n, s in made.stats.items()}}
        remembered = source.forward(weak, momentum, norm=track())
        for n in range(5):
            bank[(slot + n) % 7] = (remembered.features[n], remembered.logits[n].softmax(0))
        slot = (slot + 5) % 7
        with torch.no_grad():
            assert torch.allclose(scores[index], source.logits(images, {**leaves, **stats}), atol=1e-7)
    for name, leaf in leaves.items():
        assert torch.allclose(states[-1]["params"][name], leaf.detach(), atol=1e-8)
    assert torch.allclose(states[-1]["queue"]["keys"], keys, atol=1e-8)
    assert torch.equal(states[-1]["queue"]["labels"], labels)
    assert int(states[-1]["bank"]["added"]) == 20


def test_the_quirk_changes_what_is_learnt(source, batches, run, same):
    ends = [
        run(AdaContrast(queue=8, lr=0.05, reference_quirk=quirk), source, batches[:1])[0][-1]
        for quirk in (0, 1)
    ]
    assert not same(ends[0]["params"], ends[1]["params"])


def test_a_batch_larger_than_the_queue_leaves_its_last_images(source, run):
    states, scores = run(
        AdaContrast(queue=3, patience=0), source, [tiny_images(source, 8, seed) for seed in (0, 1)]
    )
    assert torch.isfinite(scores[-1]).all()
    assert int(states[-1]["queue"]["next"]) == 16 % 3
    features = states[-1]["bank"]["features"]
    assert features.shape == (3, source.dim)
    assert len({tuple(row.tolist()) for row in features}) == 3


def test_labels_wait_for_enough_images(source, run):
    states, _ = run(AdaContrast(patience=12), source, [tiny_images(source, 8, seed) for seed in range(4)])
    assert [int(state["seen"]) for state in states] == [0, 8, 16, 16, 16]


def test_a_reset_brings_the_same_queue_back(source, same):
    task = tiny_task(source, BUSY)
    assert same(BUSY.init(source, task), BUSY.init(source, task))
    other = AdaContrast(queue=6, seed=1).init(source, task)
    assert not same(BUSY.init(source, task)["queue"], other["queue"])
    assert torch.allclose(other["queue"]["keys"].norm(dim=1), torch.ones(6))


def test_values_out_of_range_are_refused():
    for values in ({"queue": 0}, {"neighbours": 0}, {"patience": -1}, {"temperature": 0.0}, {"keep": 2.0}):
        with pytest.raises(BadInputError):
            AdaContrast(**values)
    assert all(AdaContrast(**values) for values in AdaContrast.presets.values())
