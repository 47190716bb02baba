# SPDX-License-Identifier: Apache-2.0
"""RoTTA: its memory against a plain one, when it updates, and whose statistics move."""

import itertools
import math
from functools import partial

import pytest
import torch
from tta_bench.adapters._memory import Item, Pool, empty, remember_by_score, undeserving
from tta_bench.adapters.rotta import Rotta

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.testing import tiny_images, tiny_source

BUSY = Rotta(capacity=5, every=3, lr=0.05, nu=0.5, alpha=0.2)


@pytest.mark.parametrize("method", [Rotta(), BUSY], ids=["default", "busy"])
def test_it_keeps_its_promises(method):
    assert not [result for result in check_method(method) if result.bad]


class PlainMemory:
    """One list of [name, age, uncertainty] for each class."""

    def __init__(self, capacity, classes):
        self.lists, self.capacity, self.classes = [[] for _ in range(classes)], capacity, classes

    def score(self, age, uncertainty):
        return 1 / (1 + math.exp(-age / self.capacity)) + uncertainty / math.log(self.classes)

    def add(self, name, label, uncertainty):
        sizes = [len(one) for one in self.lists]
        if sizes[label] < self.capacity / self.classes and sum(sizes) < self.capacity:
            self.lists[label].append([name, 0, uncertainty])
        else:
            full = sizes[label] >= self.capacity / self.classes
            candidates = [label] if full else [c for c in range(self.classes) if sizes[c] == max(sizes)]
            worst = (-1.0, None, None)
            for c in candidates:
                for item in self.lists[c]:
                    if self.score(*item[1:]) >= worst[0]:
                        worst = (self.score(*item[1:]), c, item)
            if worst[0] > self.score(0, uncertainty):
                self.lists[worst[1]].remove(worst[2])
                self.lists[label].append([name, 0, uncertainty])
        for one in self.lists:
            for item in one:
                item[1] += 1


@pytest.mark.parametrize(("capacity", "classes"), [(7, 3), (8, 4), (3, 5), (1, 2)])
def test_the_memory_is_that_of_plain_lists(capacity, classes, source):
    generator = torch.Generator().manual_seed(capacity)
    plain = PlainMemory(capacity, classes)
    weights = {"time_weight": 1.0, "uncertainty_weight": 1.0}
    score = partial(undeserving, capacity=capacity, classes=classes, **weights)
    memory, count = empty(source, capacity), 40
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(-1, *source.image_shape)
    labels = (torch.rand(count, generator=generator) ** 2 * classes).long().tolist()
    uncertain = torch.rand(count, generator=generator).double().tolist()
    for start in range(0, count, 4):
        pool = Pool(memory, images[start : start + 4])
        for row in range(4):
            name = start + row
            new = Item(capacity + row, labels[name], uncertain[name])
            remember_by_score(pool, new, classes, score)
            plain.add(name, labels[name], uncertain[name])
        ordered = pool.by_class()
        found = [[int(pool.images[i.at, 0, 0, 0]), i.age, i.uncertainty] for i in ordered]
        assert found == [item for one in plain.lists for item in one]
        memory = pool.memory()
        assert len(memory["labels"]) == capacity


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_updates_fall_due_by_images_and_not_by_batches(norm, run, same):
    source = tiny_source(norm)
    images = tiny_images(source, 12, 0)
    states, scores = run(Rotta(capacity=6, every=5), source, images.split([3, 1, 2, 6]))
    moved = [not same(one["params"], two["params"]) for one, two in itertools.pairwise(states)]
    assert moved == [False, False, True, True]
    assert int(states[-1]["seen"]) == 12
    with torch.no_grad():
        before = torch.cat([source.logits(part) for part in images[:6].split([3, 1, 2])])
    assert torch.allclose(torch.cat(scores[:3]), before, atol=1e-6)


def test_several_updates_may_fall_due_in_one_batch(source, run):
    draws = BUSY.draw(source, 8, torch.Generator().manual_seed(0))
    assert draws["grid"].shape[:2] == (1, 3)
    states, scores = run(BUSY, source, [tiny_images(source, 8, 0)])
    assert int(states[-1]["optimizer"]["step"]) == 2
    assert torch.isfinite(scores[0]).all()


def test_each_network_keeps_its_own_statistics(source, run):
    images = tiny_images(source, 6, 0)
    states, _ = run(Rotta(capacity=6, every=6, alpha=0.3, nu=0.25), source, [images])
    end = states[-1]
    for name, start in source.normalisation().items():
        wanted = 0.75 * start + 0.25 * end["params"][name]
        assert torch.allclose(end["teacher"][name], wanted, atol=1e-7)
    first = next(layer.name for layer in source.layers if layer.kind == "batch")
    name = f"{first}.running_mean"
    assert not torch.equal(end["teacher_stats"][name], source.buffers[name])
    assert not torch.equal(end["teacher_stats"][name], end["stats"][name])


def test_values_out_of_range_are_refused():
    for values in ({"capacity": 0}, {"every": 0}, {"alpha": 1.5}, {"nu": -1.0}):
        with pytest.raises(BadInputError):
            Rotta(**values)
    assert all(Rotta(**values) for values in Rotta.presets.values())
