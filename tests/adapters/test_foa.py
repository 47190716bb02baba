# SPDX-License-Identifier: Apache-2.0
"""FOA: its search finds the optimum of plain functions, and its fitness is what is said of it."""

import math

import pytest
import torch
from tta_bench.adapters import _cma as cma
from tta_bench.adapters.foa import Foa

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.losses import entropy
from tta_bench.method import Inputs
from tta_bench.steps import check_compatible
from tta_bench.testing import tiny_images, tiny_source, tiny_task

SMALL = {"prompts": 2, "population": 4}


@pytest.fixture
def vit():
    return tiny_source("layer")


@pytest.mark.parametrize("method", [Foa(**SMALL), Foa(prompts=0)], ids=["search", "shift"])
def test_it_keeps_its_promises(method):
    assert not [result for result in check_method(method) if result.bad]


@pytest.mark.parametrize("size", [6, 7, 12])
def test_weights_favour_the_better_half_and_keep_the_covariance_positive(size):
    search = cma.Search(5, size)
    weights = search.weights()
    mu = sum(w > 0 for w in weights)
    assert len(weights) == size + 1
    assert math.isclose(sum(weights[:mu]), 1)
    assert weights[mu] == 0
    assert sorted(weights, reverse=True) == weights
    assert search.c1 + search.cmu * sum(weights) < 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x - 1.5).square().sum(-1),
        lambda x: ((x - 1.5) * torch.logspace(0, 2, 6, dtype=torch.float64)).square().sum(-1),
    ],
    ids=["sphere", "ellipsoid"],
)
def test_the_search_finds_the_minimum_of_a_quadratic(function):
    search, generator = cma.Search(6, 10), torch.Generator().manual_seed(0)
    state, last = cma.start(search, 1.0, torch.device("cpu")), torch.zeros(1, 6, dtype=torch.float64)
    for _ in range(150):
        state = cma.decomposed(search, state)
        candidates = torch.cat([cma.propose(state, torch.randn(10, 6, generator=generator)), last])
        fitness = function(candidates)
        last = candidates[fitness.argmin()][None]
        state = cma.update(search, state, candidates, fitness)
    assert float((state["mean"] - 1.5).abs().max()) < 1e-3
    assert int(state["told"]) == 150
    torch.testing.assert_close(
        state["root"] @ state["inverse"], torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_the_fittest_candidate_predicts_and_is_tried_again(vit):
    method, images = Foa(**SMALL), tiny_images(vit, 8, 3)
    task = tiny_task(vit, method)
    state = method.init(vit, task)
    draws = method.draw(vit, 8, torch.Generator().manual_seed(0))
    done = method.adapt(vit, state, Inputs(images, draws=draws))
    z = draws["z"][0].double()
    tried = [*(z @ state["search"]["root"]).view(4, 2, 16).float(), draws["first"][0]]
    source_images = task.source.batch(0, len(task.source))[0]
    layers = vit.transformer.norms

    def rows(x, prompts):
        seen = vit.observe(x, layers=layers, class_token=True, prompts=prompts)
        return torch.cat([seen.outputs[name] for name in layers], 1), seen

    known = rows(source_images, None)[0]
    fitness, logits = [], []
    for prompts in tried:
        found, seen = rows(images, prompts)
        away = (found.mean(0) - known.mean(0)).square().sum() + (found.std(0) - known.std(0)).square().sum()
        fitness.append(0.4 * away * 8 / 64 + entropy(seen.logits).sum())
        logits.append(seen.logits)
    best = int(torch.stack(fitness).argmin())
    torch.testing.assert_close(done.state["fitness"], torch.stack(fitness).double(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(done.state["prompts"], tried[best])
    torch.testing.assert_close(done.logits, logits[best])  # no history yet, hence no shift
    again = method.adapt(vit, done.state, Inputs(images, draws=draws))
    assert float(again.state["fitness"][-1]) == pytest.approx(float(fitness[best]), rel=1e-4)


def test_the_shift_moves_features_back_to_the_source(source, run):
    method = Foa(prompts=0)
    parts = [tiny_images(source, 6, seed) for seed in (1, 2)]
    states, scores = run(method, source, parts)
    known = source.encode(tiny_task(source, method).source.batch(0, 24)[0]).mean(0)
    torch.testing.assert_close(scores[0], source.logits(parts[0]))
    first = source.encode(parts[0]).mean(0)
    torch.testing.assert_close(scores[1], source.head(source.encode(parts[1]) + known - first))
    torch.testing.assert_close(states[2]["history"], 0.9 * first + 0.1 * source.encode(parts[1]).mean(0))


def test_a_model_without_a_class_token_is_refused(source):
    with pytest.raises(IncompatibleError, match="class token"):
        check_compatible(Foa(), source)
    with pytest.raises(IncompatibleError, match="prompts=0"):
        Foa().init(source, tiny_task(source, Foa()))


@pytest.mark.parametrize(
    "values", [{"prompts": -1}, {"population": 1}, {"samples": 0}, {"weight": -0.1}, {"sigma": 0.0}]
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        Foa(**values)
