# SPDX-License-Identifier: Apache-2.0
"""EATA: the importance of tensors for source images, and the penalty that it weighs."""

import pytest
import torch
from tta_bench.adapters.eata import Eata
from tta_bench.adapters.eta import Eta

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.norms import batch
from tta_bench.testing import tiny_task


def test_it_keeps_its_promises():
    assert not [result for result in check_method(Eata()) if result.bad]


def test_the_importance_is_the_mean_square_of_batch_gradients(source):
    method = Eata(samples=10)
    task = tiny_task(source, method, batch_size=4)
    fisher = method.init(source, task)["fisher"]
    expected = {name: torch.zeros_like(p) for name, p in source.normalisation().items()}
    for index, size in enumerate((4, 4, 2)):
        leaves = {name: p.clone().requires_grad_() for name, p in source.normalisation().items()}
        logits = source.logits(task.source.batch(index, 4)[0][:size], leaves, norm=batch())
        torch.nn.functional.cross_entropy(logits, logits.argmax(1)).backward()
        for name, leaf in leaves.items():
            expected[name] += leaf.grad**2 / 3
    for name, value in expected.items():
        assert torch.allclose(fisher[name], value, rtol=1e-4, atol=1e-9)
        assert value.any()


def test_more_samples_than_there_are_count_once(source):
    task = tiny_task(source, Eata(), batch_size=8)
    many, all_of_them = (Eata(samples=n).init(source, task)["fisher"] for n in (5000, len(task.source)))
    assert all(torch.equal(many[name], all_of_them[name]) for name in many)


def test_without_weight_it_is_eta_and_with_much_it_stays(source, batches, run):
    settings = {"margin": 1.0, "redundancy": 2.0, "optimizer": "sgd", "lr": 0.01, "momentum": 0.0}
    free, _ = run(Eta(**settings), source, batches)
    ends = {alpha: run(Eata(**settings, alpha=alpha), source, batches)[0][-1] for alpha in (0.0, 100.0)}
    start = source.normalisation()

    def away(state):
        fisher = ends[0.0]["fisher"]
        return sum((fisher[n] * (state["params"][n] - start[n]) ** 2).sum() for n in start).item()

    assert all(torch.allclose(ends[0.0]["params"][n], free[-1]["params"][n], atol=1e-7) for n in start)
    assert away(ends[100.0]) < 0.9 * away(ends[0.0])


def test_it_says_that_it_reads_source_images():
    assert "source_images" in Eata.card.needs
    assert "source_labels" not in Eata.card.needs


@pytest.mark.parametrize("values", [{"alpha": -1.0}, {"samples": 0}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        Eata(**values)
