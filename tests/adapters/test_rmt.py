# SPDX-License-Identifier: Apache-2.0
"""RMT: its warm-up, its losses by hand, and what it takes from the source images."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from tta_bench.adapters.rmt import Rmt

from tta_bench.augment import augment
from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.losses import contrastive
from tta_bench.norms import batch
from tta_bench.testing import tiny_images, tiny_source, tiny_task
from tta_bench.testing.inputs import tiny_draws


def test_it_keeps_its_promises():
    assert not [result for result in check_method(Rmt(samples=24, warmup_samples=6)) if result.bad]


def sce(one, two):
    forth = -(one.softmax(1) * two.log_softmax(1)).sum(1)
    return 0.5 * forth - 0.5 * (two.softmax(1) * one.log_softmax(1)).sum(1)


def warmed(source, method, batches):
    """Student and teacher after the warm-up, the student as leaves of an Adam that goes on."""
    leaves = {name: p.clone().requires_grad_() for name, p in source.weights().items()}
    teacher = {name: p.clone() for name, p in source.weights().items()}
    optimizer = torch.optim.Adam(list(leaves.values()), method.lr)
    for index, images in enumerate(batches):
        optimizer.param_groups[0]["lr"] = method.lr * (index + 1) / len(batches)
        optimizer.zero_grad()
        sce(
            source.logits(images, leaves, norm=batch()), source.logits(images, teacher, norm=batch())
        ).mean().backward()
        optimizer.step()
        averaged(teacher, leaves, method.keep)
    optimizer.param_groups[0]["lr"] = method.lr
    return leaves, teacher, optimizer


def averaged(teacher, leaves, keep):
    with torch.no_grad():
        for name, leaf in leaves.items():
            teacher[name] = keep * teacher[name] + (1 - keep) * leaf


def test_warm_up_and_updates_are_those_of_a_plain_loop(run):
    source = tiny_source("batch", dtype=torch.float64)
    method = Rmt(lr=0.01, keep=0.8, warmup_samples=10, width=6, replay=0.6, contrast=0.5)
    split = tiny_task(source, method).source
    replay, labels = split.batch(3, 6)
    batches = [tiny_images(source, 5, seed) for seed in range(3)]
    states, scores = run(method, source, batches, source_images=replay, source_labels=labels)
    parts = [split.batch(0, 4)[0], split.batch(1, 4)[0], split.batch(2, 4)[0][:2]]
    leaves, teacher, optimizer = warmed(source, method, parts)
    for name in leaves:
        assert torch.allclose(states[0]["params"][name], leaves[name].detach(), atol=1e-8)
        assert torch.allclose(states[0]["teacher"][name], teacher[name], atol=1e-8)
    projector = nn.Sequential(nn.Linear(source.dim, 6), nn.ReLU(), nn.Linear(6, 6)).double()
    projector.load_state_dict(states[0]["projector"])
    optimizer.add_param_group({"params": list(projector.parameters())})
    prototypes = states[0]["prototypes"]
    for index, images in enumerate(batches):
        draws = tiny_draws(source, 5, method, index, per_image=False)
        one, two = (source.forward(x, leaves, norm=batch()) for x in (images, augment(images, draws)))
        taught = source.logits(images, teacher, norm=batch()).detach()
        nearest = (normalize(one.features, dim=1) @ normalize(prototypes, dim=1).T).argmax(1)
        views = torch.stack([prototypes[nearest], one.features, two.features])
        loss = 0.5 * (sce(one.logits, taught) + sce(two.logits, taught)).mean()
        loss = loss + 0.5 * contrastive(normalize(projector(views), dim=-1), 0.1)
        loss = loss + 0.6 * cross_entropy(source.logits(replay, leaves, norm=batch()), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        averaged(teacher, leaves, method.keep)
        assert torch.allclose(scores[index], one.logits.detach() + taught, atol=1e-7)
    for name in leaves:
        assert torch.allclose(states[-1]["params"][name], leaves[name].detach(), atol=1e-7)
        assert torch.allclose(states[-1]["teacher"][name], teacher[name], atol=1e-7)
    for name, p in projector.state_dict().items():
        assert torch.allclose(states[-1]["projector"][name], p, atol=1e-7)


def test_source_labels_matter_only_with_replay(source, batches, run, same):
    images, labels = tiny_task(source, Rmt()).source.batch(0, 6)
    for replay, alike in ((0.0, True), (1.0, False)):
        method = Rmt(replay=replay, warmup_samples=0, lr=0.01)
        ends = [
            run(method, source, batches, source_images=images, source_labels=given)[0][-1]
            for given in (labels, (labels + 1) % 5)
        ]
        assert same(*ends) == alike


def test_without_a_warm_up_it_starts_at_the_source_model(source):
    state = Rmt(warmup_samples=0).init(source, tiny_task(source, Rmt()))
    for network in ("params", "teacher"):
        assert all(torch.equal(p, source.params[name]) for name, p in state[network].items())


def test_values_out_of_range_are_refused():
    for values in ({"keep": 1.5}, {"replay": -1.0}, {"warmup_samples": -1}, {"agreement": -0.1}):
        with pytest.raises(BadInputError):
            Rmt(**values)
    assert all(Rmt(**values) for values in Rmt.presets.values())
