# SPDX-License-Identifier: Apache-2.0
"""TENT's update against torch's autograd and optimisers, and its sliding window."""

import pytest
import torch
from tta_bench.adapters.tent import Tent

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.losses import entropy
from tta_bench.method import Inputs
from tta_bench.norms import batch
from tta_bench.steps import step
from tta_bench.testing import tiny_images, tiny_source, tiny_task


def start(method, source):
    return method.init(source, tiny_task(source, method))


def run(method, source, batches):
    state, scores = start(method, source), []
    for images in batches:
        stepped = step(method, source, state, Inputs(images))
        state = stepped.state
        scores.append(stepped.scores)
    return scores, state


def by_hand(source, batches, kinds, optimizer, steps):
    """Logits and tensors of TENT with torch's optimiser on leaf tensors."""
    leaves = {name: p.clone().requires_grad_() for name, p in source.normalisation(kinds).items()}
    made, scores = optimizer(list(leaves.values())), []
    for images in batches:
        for _ in range(steps):
            logits = source.logits(images, leaves, norm=batch())
            p = logits.softmax(1)
            made.zero_grad()
            (-(p * p.log()).sum(1)).mean().backward()
            made.step()
        scores.append(logits.detach())
    return scores, leaves


@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
@pytest.mark.parametrize(
    ("values", "optimizer"),
    [
        (
            {"lr": 0.02, "betas": (0.7, 0.9), "weight_decay": 0.1, "steps": 2},
            lambda ps: torch.optim.Adam(ps, 0.02, (0.7, 0.9), weight_decay=0.1),
        ),
        (
            {"optimizer": "sgd", "lr": 0.05, "momentum": 0.8, "nesterov": True},
            lambda ps: torch.optim.SGD(ps, 0.05, 0.8, nesterov=True),
        ),
    ],
)
def test_the_updates_are_those_of_torch(norm, values, optimizer):
    source = tiny_source(norm, dtype=torch.float64)
    batches = [tiny_images(source, 5, seed) for seed in range(3)]
    method = Tent(**values)
    scores, state = run(method, source, batches)
    expected, leaves = by_hand(source, batches, method.layers, optimizer, method.steps)
    assert set(leaves) == set(method.adapted_tensors(source)) == set(state["params"])
    for name, leaf in leaves.items():
        torch.testing.assert_close(state["params"][name], leaf.detach(), rtol=0, atol=1e-10)
        assert not torch.equal(leaf, source.params[name])
    torch.testing.assert_close(torch.stack(scores), torch.stack(expected), rtol=0, atol=1e-9)


def test_many_steps_on_one_batch_lower_its_entropy():
    source = tiny_source("group", dtype=torch.float64)
    images = tiny_images(source, 6, 0)
    _, state = run(Tent(lr=1e-3, steps=10), source, [images])
    before = entropy(source.logits(images)).mean()
    assert entropy(source.logits(images, state["params"])).mean() < before - 1e-3


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_episodes_of_one_image_may_run_at_once(norm):
    source, method = tiny_source(norm, dtype=torch.float64), Tent(lr=0.02, steps=2)
    inputs = Inputs(tiny_images(source, 5, 0))
    found = [step(method, source, start(method, source), inputs, way=way).scores for way in ("vmap", "loop")]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_window_updates_when_its_last_slot_is_written(norm):
    source, method = tiny_source(norm, dtype=torch.float64), Tent(lr=0.02, window=3)
    images = tiny_images(source, 8, 0)
    state, ring = start(method, source), []
    for index, image in enumerate(images):
        before = state["params"]
        stepped = step(method, source, state, Inputs(image[None]))
        state = stepped.state
        ring = [*ring[: index % 3], image, *ring[index % 3 + 1 :]]
        context = torch.stack(ring) if norm == "batch" else image[None]
        row = index % 3 if norm == "batch" else 0
        expected = source.logits(context, before, norm=batch())[row]
        torch.testing.assert_close(stepped.scores[0], expected, rtol=0, atol=1e-10)
        changed = any(not torch.equal(state["params"][name], before[name]) for name in before)
        assert changed == (index % 3 == 2)
    assert int(state["seen"]) == 8


def test_only_the_chosen_kinds_of_layers_are_adapted():
    source = tiny_source("batch")
    assert set(Tent(layers=("batch",)).adapted_tensors(source)) == set(source.normalisation(("batch",)))
    with pytest.raises(IncompatibleError, match="no affine norm layer"):
        start(Tent(layers=("group",)), source)


def test_bad_values_are_refused():
    for values in ({"optimizer": "lion"}, {"steps": 0}, {"window": 0}):
        with pytest.raises(BadInputError, match="must be"):
            Tent(**values)
    source, method = tiny_source(), Tent(window=3)
    with pytest.raises(BadInputError, match="batches of one image"):
        step(method, source, start(method, source), Inputs(tiny_images(source, 2, 0)))
    for preset in Tent.presets.values():
        Tent(**preset)
