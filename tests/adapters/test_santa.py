# SPDX-License-Identifier: Apache-2.0
"""SANTA: prototypes, projector and both losses by hand."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, normalize
from tta_bench.adapters.santa import Santa

from tta_bench.augment import augment
from tta_bench.checks import check_method
from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.method import Task
from tta_bench.norms import batch
from tta_bench.testing import tiny_images, tiny_source, tiny_task
from tta_bench.testing.inputs import tiny_draws


def test_it_keeps_its_promises():
    assert not [result for result in check_method(Santa()) if result.bad]


def attraction(prototypes, projector, features, augmented, temperature):
    """Mean over all 3N rows of the mean of two negative log-probabilities, row by row."""
    nearest = [
        max(range(5), key=lambda c: cosine_similarity(f, prototypes[c], dim=0).item()) for f in features
    ]
    rows = [prototypes[c] for c in nearest] + list(features) + list(augmented)
    g = [normalize(projector(row), dim=0) for row in rows]
    total, n = 0, len(features)
    for r in range(3 * n):
        others = [s for s in range(3 * n) if s != r]
        bottom = torch.logsumexp(torch.stack([g[r] @ g[s] / temperature for s in others]), 0)
        same = [s for s in others if s % n == r % n]
        total = total - sum(g[r] @ g[s] / temperature - bottom for s in same) / 2
    return total / (3 * n)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_the_update_is_that_of_a_plain_loop(norm, run):
    source = tiny_source(norm, dtype=torch.float64)
    method = Santa(lr=0.01, width=6, contrast=0.7, agreement=1.3, temperature=0.3)
    batches = [tiny_images(source, 5, seed) for seed in range(3)]
    states, scores = run(method, source, batches)
    projector = nn.Sequential(nn.Linear(source.dim, 6), nn.ReLU(), nn.Linear(6, 6)).double()
    projector.load_state_dict(states[0]["projector"])
    leaves = {name: p.clone().requires_grad_() for name, p in source.normalisation().items()}
    optimizer = torch.optim.Adam([*leaves.values(), *projector.parameters()], 0.01)
    for index, images in enumerate(batches):
        draws = tiny_draws(source, 5, method, index, per_image=False)
        one = source.forward(images, leaves, norm=batch())
        two = source.forward(augment(images, draws), leaves, norm=batch())
        anchor = source.logits(images, norm=batch()).log_softmax(1)
        near = -0.5 * sum((made.logits.softmax(1) * anchor).sum(1) for made in (one, two)).mean()
        drawn = attraction(states[0]["prototypes"], projector, one.features, two.features, 0.3)
        optimizer.zero_grad()
        (1.3 * near + 0.7 * drawn).backward()
        optimizer.step()
        assert torch.allclose(scores[index], one.logits.detach(), atol=1e-8)
    for name, leaf in leaves.items():
        assert torch.allclose(states[-1]["params"][name], leaf.detach(), atol=1e-8)
    for name, p in projector.state_dict().items():
        assert torch.allclose(states[-1]["projector"][name], p, atol=1e-8)


def test_prototypes_are_class_means_of_labelled_source_features(source):
    task = tiny_task(source, Santa(), batch_size=9)
    found = Santa(samples=20).init(source, task)["prototypes"]
    features, labels = [], []
    for index, size in enumerate((9, 9, 2)):
        images, own = task.source.batch(index, 9)
        features.append(source.encode(images[:size], norm=batch()))
        labels.append(own[:size])
    features, labels = torch.cat(features), torch.cat(labels)
    for label in range(5):
        assert torch.allclose(found[label], features[labels == label].mean(0), atol=1e-5)


class OneClass:
    """A source split that holds class 2 alone."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def batch(self, index, size):
        rows = (torch.arange(size) + index * size) % len(self.images)
        return self.images[rows], torch.full((size,), 2)


def test_a_class_without_source_images_attracts_nothing(source):
    split = OneClass(tiny_images(source, 8, 3))
    method = Santa()
    state = method.init(source, Task(5, source.class_names, 4, source=split))
    assert not state["prototypes"][[0, 1, 3, 4]].any()
    features = -state["prototypes"][2].expand(3, -1)
    tensors = method.trained(state)
    everything = state["prototypes"][2].expand(5, -1)
    found = [method.attraction(p, tensors, features, features) for p in (state["prototypes"], everything)]
    assert torch.equal(*found)


def test_the_projector_follows_its_seed_and_batches_of_one_work(source, run, same):
    first, second, third = (Santa(seed=s).init(source, tiny_task(source, Santa())) for s in (0, 0, 1))
    assert same(first, second)
    assert not same(first["projector"], third["projector"])
    states, scores = run(Santa(lr=0.01), source, [tiny_images(source, 1, 0)] * 2)
    assert torch.isfinite(scores[1]).all()
    assert not same(states[0]["projector"], states[2]["projector"])


def test_bad_values_and_models_without_norms_are_refused(without_norms):
    for values in ({"temperature": 0.0}, {"width": 0}, {"samples": 0}, {"contrast": -1.0}):
        with pytest.raises(BadInputError):
            Santa(**values)
    with pytest.raises(IncompatibleError):
        Santa().init(without_norms, tiny_task(without_norms, Santa()))
    assert all(Santa(**values) for values in Santa.presets.values())
