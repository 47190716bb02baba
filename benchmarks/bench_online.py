# SPDX-License-Identifier: Apache-2.0
"""The cost of explicit state beside hand-written loops, and the gain of ``vmap`` over one episode after another.

Images are random, and so are the weights of ResNet-26 and of CLIP; the pocket models are the trained ones.
"""

import statistics
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from torch.utils import _pytree as pytree

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.images.views import make_views, view_numbers
from tta_bench.engine.devices import MIB
from tta_bench.engine.groups import grouping_pays
from tta_bench.engine.meter import cpu_peak
from tta_bench.hyperparameters import create_method
from tta_bench.method import Inputs, Task
from tta_bench.models.classifier import Classifier
from tta_bench.models.loading import load_model
from tta_bench.models.source import SourceModel
from tta_bench.steps import step

sys.path.insert(0, str(Path(__file__).parent))
import online_loops as loops

CLASSES = tuple(f"class {index}" for index in range(10))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH, SIDE, WARM = 64, 32, 3
TIME_GOAL, NORM_MEMORY_GOAL, FULL_MEMORY_GOAL = 1.08, 1.05, 1.35
FOA_GOAL, FORWARD_GOAL = 1.05, 1.02
EPISODE_GOAL, EPISODE_MEMORY_GOAL = 1.05, 1.1
VIEWS, FULL_SIDE = 32, 224
TRANSFORMER, FEW = "timm/vit_small_patch16_224", 2  # images: the ratio does not depend on how many
CLIP_EPISODES = 4  # 16 of them at 224 x 224 take minutes on two cores


class Split:
    """Random images with labels, held ready."""

    def __len__(self):
        return 2 * BATCH

    def batch(self, index, size):
        return pictures(size, SIDE, seed=100 + index), torch.arange(size) % len(CLASSES)


class Explicit:
    """A method of the library with its state, called like a loop.

    Args:
        name: Of the method.
    """

    def __init__(self, name):
        self.source, self.method = resnet_source(), create_method(name, loops.SETTINGS[name])
        self.state = self.method.init(self.source, Task(len(CLASSES), CLASSES, BATCH, source=Split()))

    def step(self, images, generator=None):
        draws = None if generator is None else self.method.draw(self.source, len(images), generator)
        done = step(self.method, self.source, self.state, Inputs(images=images, draws=draws))
        self.state = done.state
        return done.scores

    def held(self):
        return [*self.source.params.values(), *self.source.buffers.values(), *pytree.tree_leaves(self.state)]


def pictures(count, side, seed=0):
    """Return random images (count, 3, side, side) in [0, 1]."""
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def resnet():
    """Return CIFAR's ResNet-26 with random weights for ten classes."""
    torch.manual_seed(0)
    return loops.ResNet26(len(CLASSES)).eval()


def resnet_source():
    """Return the same network as a source model."""
    return SourceModel(
        Classifier(resnet(), len(CLASSES)),
        name="cifar-resnet-26",
        kind="classifier",
        class_names=CLASSES,
        mean=MEAN,
        std=STD,
        preprocess=Preprocess((SIDE, SIDE)),
        pretrained=False,
    )


def by_hand(name):
    """Return the hand-written loop of a method."""
    if name == "eata":
        return loops.Eata(resnet(), MEAN, STD, [Split().batch(index, BATCH)[0] for index in range(2)])
    return {"tent": loops.Tent, "sar": loops.Sar, "cotta": loops.Cotta}[name](resnet(), MEAN, STD)


def absolute_peak_mib(side, *arguments):
    """Return the peak MiB of one more step: what lives on from the last one, and what is made above it."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in side.held()}
    return sum(storages.values()) / MIB + cpu_peak(lambda: side.step(*arguments))


def interleaved(benchmark, works, rounds, warm=WARM):
    """Return the median seconds of each work, called in turn after a warm-up.

    With one thread they are CPU seconds of the process, which its neighbours on the machine disturb less.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = [[] for _ in works]

    def turn():
        for work, taken in zip(works, seconds, strict=True):
            start = clock()
            work()
            taken.append(clock() - start)

    for _ in range(warm):
        for work in works:
            work()
    benchmark.pedantic(turn, rounds=rounds, iterations=1)
    benchmark.extra_info |= {"seconds": seconds, "threads": torch.get_num_threads()}
    return [statistics.median(taken) for taken in seconds]


@pytest.mark.parametrize("name", loops.SETTINGS)
def test_explicit_state_against_a_loop_by_hand(name, benchmark, goal):
    """Time and measure one step on 64 images; both sides must predict alike, or nothing is compared."""
    ours, theirs, images = Explicit(name), by_hand(name), pictures(BATCH, SIDE)
    drawn = name == "cotta"
    arguments = [(images, torch.Generator().manual_seed(0)) if drawn else (images,) for _ in range(2)]
    for index in range(WARM):
        mine, other = ours.step(*arguments[0]), theirs.step(*arguments[1])
        if not drawn or index == 0:  # from the second step on other weights are restored
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)
    works = [lambda: ours.step(*arguments[0]), lambda: theirs.step(*arguments[1])]
    mine, other = interleaved(benchmark, works, rounds=9 if drawn else 11)
    goal(f"{name}_step_over_loop_by_hand", mine / other, TIME_GOAL)
    mine, other = absolute_peak_mib(ours, *arguments[0]), absolute_peak_mib(theirs, *arguments[1])
    benchmark.extra_info |= {"peak_mib": [mine, other]}
    goal(
        f"{name}_peak_memory_over_loop_by_hand", mine / other, FULL_MEMORY_GOAL if drawn else NORM_MEMORY_GOAL
    )


class Carried:
    """A method with its state on a model, called step by step; its draws are made beforehand.

    Args:
        name: Of the method.
        source: The model.
        values: Hyper-parameters.
    """

    def __init__(self, name, source, **values):
        self.source, self.method = source, create_method(name, values)
        task = Task(source.num_classes, source.class_names, BATCH, source=SourceImages(source))
        self.state = self.method.init(source, task)

    def step(self, images, draws=None):
        done = step(self.method, self.source, self.state, Inputs(images=images, draws=draws))
        self.state = done.state


class SourceImages:
    """A few random images of a model's size, held ready."""

    def __init__(self, source):
        self.images = pictures(FEW, source.image_shape[1], seed=100)

    def __len__(self):
        return FEW

    def batch(self, index, size):
        rows = torch.arange(size) % FEW
        return self.images[rows], torch.zeros(size, dtype=torch.int64)


def test_foa_against_plain_forwards(benchmark, goal):
    """Time one round of the search, its decomposition included as often as it falls due, and 28 forward passes."""
    source = load_model(TRANSFORMER, CLASSES, pretrained=False)
    images, ours = pictures(FEW, source.image_shape[1]), Carried("foa", source)
    draws = ours.method.draw(source, FEW, torch.Generator().manual_seed(0))

    @torch.no_grad()
    def plain():
        for _ in range(ours.method.population + 1):
            source.logits(images)

    mine, forwards = interleaved(benchmark, [lambda: ours.step(images, draws), plain], rounds=5)
    goal("foa_step_over_28_forwards", mine / forwards, FOA_GOAL)


def test_neo_against_a_forward(benchmark, goal):
    """Time one step and one forward pass."""
    source = load_model(TRANSFORMER, CLASSES, pretrained=False)
    images, ours = pictures(FEW, source.image_shape[1]), Carried("neo", source)

    @torch.no_grad()
    def plain():
        source.logits(images)

    mine, forward = interleaved(benchmark, [lambda: ours.step(images), plain], rounds=41)
    goal("neo_step_over_forward", mine / forward, FORWARD_GOAL)


@pytest.mark.parametrize("host", ["tent", "eata", "sar"])
def test_come_against_its_host(host, benchmark, goal):
    """Time one step on 64 images with the loss of COME and with the entropy; every sample passes the filters."""
    source, images = resnet_source(), pictures(BATCH, SIDE)
    values = {key: value for key, value in loops.SETTINGS[host].items() if key != "samples"}
    sides = [Carried(host, source, loss=loss, **values) for loss in ("come", "entropy")]
    works = [lambda side=side: side.step(images) for side in sides]
    mine, base = interleaved(benchmark, works, rounds=31)
    goal(f"come_{host}_step_over_{host}", mine / base, FORWARD_GOAL)


def episodes(benchmark, goal, label, method, source, inputs, target, rounds=15):
    """Compare one episode per image by ``vmap`` and one after another, in time and in logits."""
    state = method.init(source, Task(source.num_classes, source.class_names, BATCH))
    vmap, loop = (lambda way=way: step(method, source, state, inputs, way=way) for way in ("vmap", "loop"))
    away = float((vmap().scores - loop().scores).abs().max())
    fast, slow = interleaved(benchmark, (vmap, loop), rounds)
    goal(f"{label}_loop_over_vmap", slow / fast, target, at_most=False)
    goal(f"{label}_vmap_difference", away, 1e-5)


@pytest.mark.parametrize("model", ["pocket-bn", "pocket-gn", "pocket-clip"])
def test_episodic_tent_by_vmap(model, benchmark, goal):
    """Adapt to 16 images, each an episode of its own."""
    source = load_model(model, pocket_classes())
    inputs = Inputs(images=pictures(16, source.image_shape[1]))
    episodes(benchmark, goal, f"tent_16_{model}", create_method("tent"), source, inputs, 3.0)


@pytest.mark.parametrize("model", ["pocket-bn", "pocket-gn"])
def test_memo_by_vmap(model, benchmark, goal):
    """Adapt to 16 images with 16 views each."""
    source, method = load_model(model, pocket_classes()), create_method("memo", {"views": 16})
    images, generator = pictures(16, source.image_shape[1]), torch.Generator().manual_seed(0)
    numbers = torch.stack([view_numbers("augmix", 16, generator) for _ in images])
    inputs = Inputs(images=images, views=make_views(images, numbers, "augmix"))
    episodes(benchmark, goal, f"memo_16_views_{model}", method, source, inputs, 1.3)


class Episode:
    """One episode of MEMO at a time, as the runner takes it where groups do not pay."""

    def __init__(self, source):
        self.source, self.method = source, create_method("memo", {"views": VIEWS})
        self.state = self.method.init(source, Task(source.num_classes, source.class_names, 1))

    def step(self, image, views):
        inputs = Inputs(images=image, views=views[None])
        return step(self.method, self.source, self.state, inputs, way="vmap").scores

    def held(self):
        return [*self.source.params.values(), *self.source.buffers.values(), *pytree.tree_leaves(self.state)]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vit_tiny_patch16_224"])
def test_memo_on_images_of_full_size(name, benchmark, goal):
    """Time and measure one episode with 32 views of 224 x 224 beside the same steps by hand."""
    source = load_model(f"timm/{name}", CLASSES, pretrained=False)
    network = timm.create_model(name, num_classes=len(CLASSES)).eval()
    network.load_state_dict({**source.params, **source.buffers})
    mean, std = (one.view(-1, 1, 1) for one in (source.mean, source.std))
    ours, theirs = Episode(source), loops.Memo(network, mean, std)
    arguments = pictures(1, FULL_SIDE), pictures(VIEWS, FULL_SIDE, seed=1)
    torch.testing.assert_close(ours.step(*arguments), theirs.step(*arguments), rtol=1e-3, atol=1e-4)
    works = [lambda: ours.step(*arguments), lambda: theirs.step(*arguments)]
    rounds, warm = (4, 0) if name == "resnet50" else (7, 1)
    mine, other = interleaved(benchmark, works, rounds, warm)
    goal(f"memo_{VIEWS}_views_{name}_over_loop_by_hand", mine / other, EPISODE_GOAL)
    assert not grouping_pays(source, ours.state, works[0])
    mine, other = absolute_peak_mib(ours, *arguments), absolute_peak_mib(theirs, *arguments)
    goal(f"memo_{VIEWS}_views_{name}_peak_memory_over_loop_by_hand", mine / other, EPISODE_MEMORY_GOAL)


def test_episodic_tent_on_clip_by_vmap(benchmark, goal):
    """Adapt CLIP ViT-B/32 to images of 224 x 224, each an episode of its own."""
    source = load_model("open_clip/ViT-B-32", CLASSES, pretrained=False)
    inputs = Inputs(images=pictures(CLIP_EPISODES, source.image_shape[1]))
    episodes(
        benchmark, goal, f"tent_{CLIP_EPISODES}_clip_vit_b_32", create_method("tent"), source, inputs, 1.0, 5
    )


def pocket_classes():
    """Return the classes of the pocket models."""
    from tta_bench.pocket.datasets import POCKET

    return POCKET.class_names
