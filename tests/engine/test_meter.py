# SPDX-License-Identifier: Apache-2.0
"""Clocks and memory against what is known."""

import time

import pytest
import torch

from tta_bench.engine.devices import device_peak
from tta_bench.engine.meter import Meter, cpu_peak, peak_rss_mib
from tta_bench.engine.rows import probabilities, score_columns


def test_phases_add_up_and_are_taken_once():
    meter = Meter(torch.device("cpu"))
    for _ in range(2):
        with meter.phase("adapt"):
            time.sleep(0.01)
    with meter.phase("predict"):
        pass
    taken = meter.take()
    assert taken["adapt"] >= 0.02 > taken["predict"] >= 0
    assert meter.take() == {}


def test_a_phase_that_raises_is_still_closed():
    meter = Meter(torch.device("cpu"))
    with pytest.raises(ValueError, match="broke"), meter.phase("adapt"):
        raise ValueError("broke")
    assert "adapt" in meter.take()


@pytest.mark.parametrize("mebibytes", [3, 12])
def test_known_tensors_are_read_exactly(mebibytes):
    standing = torch.ones(1024, 1024)

    def work():
        tensors = [torch.empty(2**18) for _ in range(mebibytes)]
        del tensors
        return standing.sum()

    assert cpu_peak(work) == pytest.approx(mebibytes, abs=0.01)


def test_memory_freed_before_the_next_allocation_counts_once():
    def work():
        for _ in range(5):
            kept = torch.empty(2**18)
            del kept

    assert cpu_peak(work) == pytest.approx(1, abs=0.01)


def test_resident_memory_is_that_of_this_process():
    assert 50 < peak_rss_mib() < 100_000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_memory_is_the_peak_above_the_start():
    device = torch.device("cuda")
    standing = torch.empty(2**20, device=device)
    above, absolute = device_peak(lambda: torch.empty(2**21, device=device), device)
    assert above == pytest.approx(8, abs=0.6)
    assert absolute >= above + standing.nbytes / 2**20 - 0.1


def test_columns_of_scores_match_a_plain_computation():
    logits = torch.randn(40, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    columns = score_columns(logits, "logits")
    p = logits.softmax(-1)
    assert columns["prediction"].tolist() == p.argmax(-1).tolist()
    assert torch.allclose(torch.from_numpy(columns["confidence"]).double(), p.amax(-1), atol=1e-7)
    expected = torch.distributions.Categorical(probs=p).entropy()
    assert torch.allclose(torch.from_numpy(columns["entropy"]).double(), expected, atol=1e-6)
    assert columns["top5"].tolist() == p.topk(5).indices.tolist()


def test_the_type_of_the_scores_decides_the_confidence():
    votes = torch.tensor([[3.0, 1.0], [0.0, 0.0]])
    assert probabilities(votes, "votes").tolist() == [[0.75, 0.25], [0.0, 0.0]]
    given = torch.tensor([[0.9, 0.1]])
    assert score_columns(given, "probabilities")["confidence"] == pytest.approx([0.9])
    assert score_columns(given, "logits")["confidence"] == pytest.approx(given.softmax(-1)[0, 0].item())


def test_scores_that_are_not_numbers_never_win():
    columns = score_columns(torch.tensor([[float("nan"), 1.0, float("-inf")]]), "logits")
    assert columns["prediction"].tolist() == [1]


def test_ties_go_to_the_lowest_class():
    assert score_columns(torch.ones(2, 4), "logits")["prediction"].tolist() == [0, 0]
