# SPDX-License-Identifier: Apache-2.0
"""What tests of several methods share: a model without norm layers, and a run over a few batches."""

import pytest
import torch
from torch import nn

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.method import Inputs, Task
from tta_bench.models.classifier import Classifier
from tta_bench.models.source import SourceModel
from tta_bench.parity.models import Prototypes
from tta_bench.parity.vlm_inputs import recorded_text
from tta_bench.steps import step
from tta_bench.testing import tiny_images, tiny_source, tiny_task
from tta_bench.testing.inputs import tiny_draws


@pytest.fixture
def without_norms():
    """A source model that has no normalisation layer."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    for parameter in net.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return SourceModel(
        Classifier(net, 5), name="no norms", kind="classifier", class_names=tuple("abcde"),
        mean=(0.0,) * 3, std=(1.0,) * 3, preprocess=Preprocess((8, 8)), pretrained=False,
    )  # fmt: skip


@pytest.fixture
def source():
    """A tiny classifier with BatchNorm."""
    return tiny_source("batch")


@pytest.fixture
def grouped():
    """A tiny classifier with GroupNorm."""
    return tiny_source("group")


@pytest.fixture
def batches(source):
    """Three batches of eight images."""
    return [tiny_images(source, 8, seed) for seed in range(3)]


@pytest.fixture
def run():
    """A function that runs a method over batches and returns the states after each, the first included, and scores."""

    def ran(method, source, batches, **inputs):
        states, scores = [method.init(source, tiny_task(source, method))], []
        for index, images in enumerate(batches):
            draws = tiny_draws(source, len(images), method, index, per_image=False)
            stepped = step(method, source, states[-1], Inputs(images, draws=draws, **inputs))
            states.append(stepped.state)
            scores.append(stepped.scores)
        return states, scores

    return ran


@pytest.fixture
def same():
    """A function that tells whether two states hold the same bits."""

    def compared(first, second):
        one, two = (torch.utils._pytree.tree_flatten(tree) for tree in (first, second))
        return one[1] == two[1] and all(torch.equal(a, b) for a, b in zip(one[0], two[0], strict=True))

    return compared


@pytest.fixture
def recorded():
    """A function that makes a source model of class texts (K, D), whose images come as features."""

    def made(text, scale=100.0):
        names = tuple(f"class {index}" for index in range(len(text)))
        factor = torch.tensor(scale, dtype=text.dtype)
        side = recorded_text(dict(zip(names, text, strict=True)), names, ("{}",), factor)
        return SourceModel(
            Prototypes(text, factor), name="recorded", kind="clip", class_names=names, mean=(0.0,) * 3,
            std=(1.0,) * 3, preprocess=Preprocess((1, 1)), dtype=text.dtype, text=side,
        )  # fmt: skip

    return made


@pytest.fixture
def texts():
    """Six unit class texts of eight dimensions."""
    return unit_rows(6, 8, seed=0)


@pytest.fixture
def unit():
    """A function that returns unit rows (N, D) in float64 from a seed."""
    return unit_rows


def unit_rows(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(shape, generator=generator, dtype=torch.float64), dim=-1)


@pytest.fixture
def watch():
    """A function that runs a method over features (N, D) or views (N, V, D): last state, evidence and scores."""

    def ran(method, source, rows, size=1, state=None):
        views = rows if rows.ndim == 3 else rows.unsqueeze(1)
        task = Task(source.num_classes, source.class_names, size, stream_length=len(rows))
        state = method.init(source, task) if state is None else state
        found, scores = [], []
        for batch in torch.split(views, size):
            given = Inputs(images=None, features=batch[:, 0], view_features=batch)
            state, evidence = method.observe(source, state, given)
            found.append(evidence)
            scores.append(method.score(source, evidence))
        joined = {name: torch.cat([one[name] for one in found]) for name in found[0]}
        return state, joined, torch.cat(scores)

    return ran
