# SPDX-License-Identifier: Apache-2.0
"""One step: the ways agree, optional inputs stay optional, and what a method returns is looked at."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from tta_bench.adapters.tent import Tent

from tta_bench.errors import PluginError
from tta_bench.method import Adapted, Card, Inputs, Method, ViewPolicy
from tta_bench.steps import size, slice_inputs, step, way_of
from tta_bench.testing import tiny_inputs, tiny_source, tiny_task

CARD = Card(paper="none", reset="image", vmappable=True)


@dataclass(frozen=True)
class Busy(Method):
    """Use everything that an image can come with, and report a teacher."""

    fused: bool = True
    teaches: bool = True

    card: ClassVar[Card] = replace(
        CARD,
        views=ViewPolicy(3),
        needs=frozenset({"features", "source_replay", "source_labels", "source_images", "text"}),
    )

    def init(self, source, task):
        return {"bias": torch.arange(task.num_classes, dtype=source.dtype)}

    def draw(self, source, n, generator):
        return {"noise": torch.randn(n, source.num_classes, generator=generator)}

    def adapt(self, source, state, inputs):
        replay = source.logits(inputs.source_images).mean(0) * inputs.source_labels.sum()
        views = source.logits(inputs.views.flatten(0, 1)).reshape(len(inputs.images), 3, -1).mean(1)
        scores = views + source.head(inputs.features + inputs.view_features.mean(1)) + replay
        scores = scores + inputs.draws["noise"].to(scores.dtype)
        teacher = source.logits(inputs.images) if self.teaches else None
        return Adapted({"bias": scores.mean(0)}, scores if self.fused else None, teacher)

    def predict(self, source, state, inputs):
        return source.logits(inputs.images) + state["bias"]


def setting(method, n=3):
    from tta_bench.testing import tiny_clip

    source = tiny_clip(dtype=torch.float64)
    return source, method.init(source, tiny_task(source, method)), tiny_inputs(source, n, method=method)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("teaches", [True, False])
def test_vmap_and_a_loop_agree_on_everything(fused, teaches):
    method = Busy(fused, teaches)
    source, state, inputs = setting(method)
    looped, mapped = (step(method, source, state, inputs, way=way) for way in ("loop", "vmap"))
    assert torch.allclose(looped.scores, mapped.scores, rtol=1e-12, atol=1e-12)
    assert looped.fused == mapped.fused == fused
    assert (looped.teacher is None) == (mapped.teacher is None) == (not teaches)
    if looped.teacher is not None:
        assert torch.allclose(looped.teacher, mapped.teacher, rtol=1e-12, atol=1e-12)
    assert looped.state is state
    assert mapped.state is state


def test_each_image_of_a_loop_starts_from_the_initial_state():
    method = Busy(fused=False)
    source, state, inputs = setting(method)
    together = step(method, source, state, inputs, way="loop").scores
    for index in range(3):
        alone = step(method, source, state, slice_inputs(inputs, index, index + 1))
        assert torch.equal(alone.scores, together[index : index + 1])


def test_a_batch_step_hands_the_new_state_on():
    source = tiny_source("batch")
    method = Tent()
    state = method.init(source, tiny_task(source, method))
    stepped = step(method, source, state, tiny_inputs(source, 4, method=method))
    assert stepped.state is not state
    assert int(stepped.state["optimizer"]["step"]) == 1
    assert not stepped.scores.requires_grad


@pytest.mark.parametrize("way", ["batch", "loop", "vmap", "native"])
@pytest.mark.parametrize("only", ["images", "features"])
def test_inputs_that_are_not_there_stay_away(way, only):
    @dataclass(frozen=True)
    class Spare(Method):
        """Score what there is."""

        card = CARD

        def adapt(self, source, state, inputs):
            there = [name for name, value in inputs._asdict().items() if value is not None]
            assert there == [only]
            if only == "images":
                return Adapted(state, source.logits(inputs.images))
            return Adapted(state, source.head(inputs.features))

    source, method = tiny_source("group"), Spare()
    images = tiny_inputs(source, 3, method=method).images
    expected = source.logits(images)
    inputs = Inputs(images) if only == "images" else Inputs(None, features=source.encode(images))
    assert size(inputs) == 3
    scores = step(method, source, method.init(source, tiny_task(source, method)), inputs, way=way).scores
    assert torch.allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("way", ["batch", "native", "loop", "vmap"])
@pytest.mark.parametrize("teacher", [lambda x: x[:, 1:], lambda x: x.repeat(2, 1)], ids=["classes", "images"])
def test_a_teacher_of_another_shape_is_refused(way, teacher):
    @dataclass(frozen=True)
    class Misled(Method):
        """Report a teacher of other images or classes."""

        card = CARD

        def adapt(self, source, state, inputs):
            logits = source.logits(inputs.images)
            return Adapted(state, logits, teacher(logits))

    source, method = tiny_source("group"), Misled()
    inputs = tiny_inputs(source, 3, method=method)
    with pytest.raises(PluginError, match="Misled must give teacher scores of shape"):
        step(method, source, method.init(source, tiny_task(source, method)), inputs, way=way)


def test_a_slice_keeps_the_replay_batch_whole():
    _, _, inputs = setting(Busy(), n=4)
    part = slice_inputs(inputs, 1, 3)
    assert torch.equal(part.images, inputs.images[1:3])
    assert torch.equal(part.view_features, inputs.view_features[1:3])
    assert torch.equal(part.draws["noise"], inputs.draws["noise"][1:3])
    assert part.source_images is inputs.source_images
    assert part.source_labels is inputs.source_labels


@pytest.mark.parametrize(
    ("flags", "per_image", "way"),
    [
        ({"independent": True, "vmappable": True}, True, "native"),
        ({"independent": False, "vmappable": True}, True, "vmap"),
        ({"independent": False, "vmappable": False}, True, "loop"),
        ({"independent": True, "vmappable": True}, False, "batch"),
    ],
)
def test_the_way_follows_the_card(flags, per_image, way):
    class Carded(Busy):
        card = replace(CARD, **flags)

    assert way_of(Carded(), per_image=per_image) == way


@pytest.mark.parametrize(("fused", "expected"), [(True, ["adapt"]), (False, ["adapt", "predict"])])
@pytest.mark.parametrize("way", ["batch", "vmap"])
def test_phases_are_announced_in_order(way, fused, expected):
    seen = []

    @contextmanager
    def phase(name):
        seen.append(name)
        yield

    method = Busy(fused)
    source, state, inputs = setting(method)
    step(method, source, state, inputs, way=way, phase=phase)
    assert seen == expected


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda scores: scores, "Odd.adapt must return tta_bench.method.Adapted"),
        (lambda scores: Adapted({}, scores.T), r"Odd must give scores of shape \(3, 5\), got \(5, 3\)"),
        (lambda scores: Adapted({}, scores.tolist()), r"Odd must give scores of shape \(3, 5\), got list"),
    ],
)
def test_a_wrong_return_is_a_clear_error(returned, told):
    @dataclass(frozen=True)
    class Odd(Method):
        """Return something odd."""

        card = CARD

        def adapt(self, source, state, inputs):
            return returned(source.logits(inputs.images))

    source = tiny_source("batch")
    with pytest.raises(PluginError, match=told):
        step(Odd(), source, {}, tiny_inputs(source, 3, method=Odd()))
